#!/bin/sh
# The application: it reads its password once, takes two seconds to start, says
# that it has, and works on with what it has read.
set -eu
file() { if [ -e "$DB_PASSWORD_FILE" ]; then echo "there"; else echo "gone"; fi; }

password=$(cat "$DB_PASSWORD_FILE")
echo "starting; the file is $(file)"
sleep 2
echo "started; the file is $(file)"
touch /run/app/ready
sleep 3
echo "at work with a password of ${#password} bytes; the file is $(file)"
