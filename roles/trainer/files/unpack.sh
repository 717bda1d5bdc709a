#!/bin/sh
# Unpacks problems.tgz of this folder as problems/NAME, which is there only when it is whole: unpack.sh NAME
set -eu

rm -rf incoming
mkdir -p incoming problems
tar --extract --no-same-owner --file=problems.tgz --directory=incoming
chmod -R u=rwX,go=rX incoming
mv incoming "problems/$1"
rm problems.tgz
