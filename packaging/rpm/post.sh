# Makes the folders. $1: how many versions of the package there will be when all is done; 1 at the first installation.
systemd-tmpfiles --create tidegate.conf || true
if [ -d /run/systemd/system ]; then systemctl --system daemon-reload || true; fi
if [ "$1" -eq 1 ]; then
    cat <<'END'
tidegate is installed and not started. Say who this node is in /etc/tidegate/startup.ini (as it stands: a node alone), then:
    systemctl enable --now tidegate
It denies everything until a policy is applied. First steps: /usr/share/doc/tidegate/docs/install.md
END
fi
exit 0
