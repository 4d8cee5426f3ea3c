#!/bin/sh
# Usage: coverage.sh PROFILE
# Prints the share of statements that tests reach, a line for each package.
set -eu
awk -F '[: ]' '
NR > 1 {
    n = split($1, part, "/"); package = part[1]
    for (i = 2; i < n; i++) package = package "/" part[i]
    key = $1 ":" $2
    statements[key] = $3; owner[key] = package
    if ($4 > 0) reached[key] = 1
}
END {
    for (key in statements) {
        total[owner[key]] += statements[key]
        if (key in reached) hit[owner[key]] += statements[key]
    }
    for (package in total) printf "%5.1f %%  %s\n", 100 * hit[package] / total[package], package
}' "$1" | sort -k 3
