#!/bin/sh
# Runs as an mmdebstrap customize hook: $1 is the root of the new system,
# $2 the public key that may log in as anyone.
set -eu
root=$1

install -m 0644 "$2" "$root/etc/ssh/rig.pub"
cat >"$root/etc/ssh/sshd_config.d/rig.conf" <<CONF
AuthorizedKeysFile /etc/ssh/rig.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
UseDNS no
MaxStartups 200
MaxSessions 100
CONF
# Debian 13's: each look at whether sshd answers yet counts as an attack, and logins are turned away.
if grep -qi persourcepenalties "$root/usr/sbin/sshd"; then
    echo "PerSourcePenalties no" >>"$root/etc/ssh/sshd_config.d/rig.conf"
fi

for user in alice bob carol; do
    chroot "$root" useradd --create-home --shell /bin/bash "$user"
done

echo lgvm >"$root/etc/hostname"
echo "127.0.0.1 localhost lgvm" >"$root/etc/hosts"
echo "/dev/vda / ext4 defaults 0 1" >"$root/etc/fstab"

# A fixed address: no DHCP lease to wait for, no router and no name server to leave by.
cat >"$root/etc/systemd/network/10-rig.network" <<CONF
[Match]
Name=eth0
[Network]
Address=10.0.2.15/24
LinkLocalAddressing=no
IPv6AcceptRA=no
CONF
chroot "$root" systemctl --quiet enable systemd-networkd
chroot "$root" systemctl --quiet mask systemd-networkd-wait-online.service

# Their cgroups come and go by themselves and would blur what tests count.
chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer logrotate.timer man-db.timer systemd-tmpfiles-clean.timer

# Not installed, since it takes the place of cron: tests do that.
(cd "$root/var/tmp" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -q download systemd-cron cron)

install -d -m 2755 "$root/var/log/journal"
chroot "$root" chgrp systemd-journal /var/log/journal
rm -f "$root/etc/machine-id"
touch "$root/etc/machine-id"
