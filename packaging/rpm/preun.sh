# $1: how many versions of the package are left; 0 when it goes for good.
if [ "$1" -eq 0 ] && [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now tidegate.socket tidegate.service || true
fi
exit 0
