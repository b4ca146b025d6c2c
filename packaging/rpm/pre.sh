# Refuses to put an older Tidegate over the state of a newer one, and makes the user that files of the package belong to.
set -e
systemd-sysusers --replace=/usr/lib/sysusers.d/tidegate.conf - <<'END'
u tidegate - "Tidegate secure web gateway" /var/lib/tidegate
END
