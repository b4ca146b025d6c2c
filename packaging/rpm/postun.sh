# $1: how many versions of the package are left. After an upgrade the running node is handed over to the new version.
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload || true
    if [ "$1" -ge 1 ]; then systemctl try-restart tidegate.service || true; fi
fi
exit 0
