#!/bin/sh
# Uploads DICOM files to an Orthanc by its REST interface (docs/pipelines.md): to-orthanc.sh URL FILE...
# Ends with 0 when all were stored. A password belongs into ~/.netrc (CURL_OPTIONS='--netrc').
set -eu
url=${1%/}
shift
for file in "$@"; do
    # shellcheck disable=SC2086
    curl -sSf ${CURL_OPTIONS-} -o /dev/null -X POST -H 'Content-Type: application/dicom' --data-binary @"$file" "$url/instances"
done
