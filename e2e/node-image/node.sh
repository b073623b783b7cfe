#!/bin/sh
# Turns a Debian tree into a kind node: kind's own files, and systemd cut down as
# kind's base image does it (images/base/Dockerfile of the kind module).
# usage: node.sh TREE KIND-FILES MANIFESTS
set -eu
tree=$1 kind=$2 manifests=$3
units=$tree/etc/systemd/system
own=$tree/lib/systemd/system

install -d "$tree/kind/bin" "$tree/kind/manifests" "$tree/etc/containerd" \
  "$tree/etc/kubernetes/manifests" "$tree/etc/cni/net.d" "$tree/etc/cdi" "$tree/opt/cni/bin"
install -m755 "$kind/usr/local/bin/entrypoint" "$tree/usr/local/bin/"
install -m755 "$kind"/kind/bin/* "$tree/kind/bin/"
install -m644 "$kind/etc/crictl.yaml" "$tree/etc/"
install -m644 "$kind/etc/default/kubelet" "$tree/etc/default/"
install -m644 "$kind"/etc/sysctl.d/* "$tree/etc/sysctl.d/"
for unit in containerd.service kubelet.service kubelet.slice undo-mount-hacks.service; do
  install -m644 "$kind/etc/systemd/system/$unit" "$units/"
done
install -d "$units/kubelet.service.d"
install -m644 "$kind"/etc/systemd/system/kubelet.service.d/* "$units/kubelet.service.d/"
install -m644 "$manifests"/* "$tree/kind/manifests/"

find "$own/sysinit.target.wants" -name systemd-tmpfiles-setup.service -delete
rm -f "$own"/multi-user.target.wants/* "$units"/*.wants/* "$own"/local-fs.target.wants/* \
  "$own"/sockets.target.wants/*udev* "$own"/sockets.target.wants/*initctl* \
  "$own"/basic.target.wants/*
echo ReadKMsg=no >>"$tree/etc/systemd/journald.conf"
ln -sf /usr/lib/systemd/systemd "$tree/sbin/init"
ln -sf /usr/lib/systemd/system/multi-user.target "$units/default.target"
ln -sf /dev/null "$units/systemd-binfmt.service" # its effect would be on the whole machine
install -d "$units/multi-user.target.wants"
for unit in kubelet containerd undo-mount-hacks; do
  ln -s "/etc/systemd/system/$unit.service" "$units/multi-user.target.wants/"
done

for plugin in ptp bridge host-local loopback portmap; do
  mv "$tree/usr/lib/cni/$plugin" "$tree/opt/cni/bin/"
done
rm -rf "$tree/usr/lib/cni"
rm -f "$tree/etc/machine-id" "$tree/var/lib/dbus/machine-id"
