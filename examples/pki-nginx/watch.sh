#!/bin/sh
# Asks nginx for a page again and again, for longer than a certificate lives,
# and believes the authority in /ca.pem alone. It tells the serial number of
# each certificate that it is shown.
set -u
ask() { curl -sS --fail --max-time 5 --cacert /ca.pem -o /dev/null -w '%{certs}' https://app.test/; }

until ask >/dev/null 2>&1; do sleep 0.2; done
started=$(date +%s)
requests=0 failed=0 last=
while [ $(($(date +%s) - started)) -lt 22 ]; do
	requests=$((requests + 1))
	if shown=$(ask); then
		serial=$(echo "$shown" | sed -n 's/^Serial Number: *//p')
		[ "$serial" = "$last" ] || echo "certificate $serial"
		last=$serial
	else
		failed=$((failed + 1))
	fi
	sleep 0.05
done
echo "22 seconds: $failed of $requests requests failed"
