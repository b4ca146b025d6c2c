# Refuses to put an older Tidegate over the state of a newer one, and makes the user that files of the package belong to.
if [ "$1" -gt 1 ]; then
    before="$(rpm -q --queryformat '%{VERSION}\n' tidegate 2>/dev/null | sort -V | tail -n 1)"
    case "$before" in [0-9]*)
        if [ "$(printf '%s\n' "$before" @VERSION@ | sort -V | tail -n 1)" != @VERSION@ ]; then
            cat >&2 <<END
tidegate: refusing to go from $before back to @VERSION@.
Policy, records and snapshots in /var/lib/tidegate were written by $before, and @VERSION@ may not be able to read them.
Nothing was changed. If this host must have @VERSION@: see "Downgrade" in /usr/share/doc/tidegate/docs/install.md.
END
            exit 1
        fi
        ;;
    esac
fi
systemd-sysusers --replace=/usr/lib/sysusers.d/tidegate.conf - <<'END'
u tidegate - "Tidegate secure web gateway" /var/lib/tidegate
END
