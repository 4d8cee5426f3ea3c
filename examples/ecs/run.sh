#!/bin/sh
# Usage: run.sh FAMILY
#
# Runs the container of a registered task definition with Docker, with the
# settings that ECS has of it, and says with which. The log driver, the roles
# and what bounds memory and processors are left out. The credentials are those
# of this shell, where a task has its role's.
set -eu
[ $# -eq 1 ] || { echo "usage: run.sh FAMILY" >&2; exit 64; }
settings=$(aws ecs describe-task-definition --task-definition "$1" --output text --query "taskDefinition.containerDefinitions[0] | [
    [user] | [?@].join('', ['--user=', @]),
    [readonlyRootFilesystem] | [?@].join('', ['--read-only=', to_string(@)]),
    [stopTimeout] | [?@].join('', ['--stop-timeout=', to_string(@)]),
    dockerSecurityOptions[].join('', ['--security-opt=', @]),
    linuxParameters.capabilities.drop[].join('', ['--cap-drop=', @]),
    linuxParameters.capabilities.add[].join('', ['--cap-add=', @]),
    linuxParameters.tmpfs[].join('', ['--tmpfs=', containerPath, ':size=', to_string(size), 'm,', join(',', mountOptions)]),
    environment[].join('', ['--env=', name, '=', value]),
    image
] | [] | [?@]")
# One setting a field, and no file names in the place of a *.
set -f
IFS='	'
for setting in $settings; do
	echo "$setting"
done
# shellcheck disable=SC2086
exec docker run --rm -e AWS_ACCESS_KEY_ID -e AWS_SECRET_ACCESS_KEY -e AWS_SESSION_TOKEN -e AWS_ENDPOINT_URL $settings
