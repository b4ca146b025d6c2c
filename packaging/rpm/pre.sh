# Refuses to put an older Tidegate over the state of a newer one, and makes the user that files of the package belong to.
# The version that is here stands in a file of it; asking rpm while it works on its database is not safe everywhere.
before="$(cat /usr/share/tidegate/version 2>/dev/null)"
if [ "$1" -gt 1 ] && [ -n "$before" ] && [ "$(printf '%s\n' "$before" @VERSION@ | sort -V | tail -n 1)" != @VERSION@ ]; then
    cat >&2 <<END
tidegate: refusing to go from $before back to @VERSION@.
Policy, records and snapshots in /var/lib/tidegate were written by $before, and @VERSION@ may not be able to read them.
Nothing was changed. If this host must have @VERSION@: see "Downgrade" in /usr/share/doc/tidegate/docs/install.md.
END
    exit 1
fi
systemd-sysusers --replace=/usr/lib/sysusers.d/tidegate.conf - <<'END'
u tidegate - "Tidegate secure web gateway" /var/lib/tidegate
END
