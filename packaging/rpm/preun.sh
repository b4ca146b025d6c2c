# Stops the node before its files go. $1: how many versions of the package are left; an upgrade stops nothing.
if [ "$1" -eq 0 ] && [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now tidegate.socket tidegate.service || true
fi
exit 0
