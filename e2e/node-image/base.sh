#!/bin/sh
# Makes a Debian tree look like the official Python image: pip is there, python and
# pip are in /usr/local/bin, and pip may install into the system.
# usage: base.sh TREE
set -eu
tree=$1

rm -f "$tree/usr/lib/python3.11/EXTERNALLY-MANAGED"
for name in python python3 python3.11; do
  ln -sf /usr/bin/python3.11 "$tree/usr/local/bin/$name"
done
chroot "$tree" sh -eu -c '
  wheels=/usr/share/python-wheels
  python3.11 "$(ls $wheels/pip-*.whl)/pip" install --quiet --no-index --find-links "$wheels" \
    --root-user-action=ignore pip
'
find "$tree/usr" -name __pycache__ -prune -exec rm -rf {} +
rm -rf "$tree"/var/cache/debconf/*-old "$tree"/var/log/*.log "$tree/var/log/apt"
