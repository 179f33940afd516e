#!/bin/sh
# Copies series that an Orthanc has received into a drop folder (docs/pipelines.md).
#   from-orthanc.sh URL INBOX [MODALITY...]
# Series are copied once they are stable (Orthanc's StableAge), each into a folder of its own that is named by Orthanc's
# hash, only those of the modalities (default CT MR PT): the SEG objects that come back are no input again. What was seen
# last is kept in INBOX/../.orthanc-last, so that nothing is lost or copied twice when this is started again.
# Environment: POLL (seconds between looks, 5); curl's own: a password belongs into ~/.netrc (CURL_OPTIONS='--netrc').
set -eu
[ $# -ge 2 ] || { echo "usage: from-orthanc.sh URL INBOX [MODALITY...]" >&2; exit 1; }
url=${1%/} inbox=$2
shift 2
[ $# -gt 0 ] || set -- CT MR PT
modalities=" $* " state=$(dirname "$inbox")/.orthanc-last poll=${POLL:-5}
mkdir -p "$inbox"

# shellcheck disable=SC2086
get() { curl -sSf ${CURL_OPTIONS-} "$url/$1"; }
# One value of a JSON object: from_json EXPRESSION, where o is the object.
from_json() { python3 -c "import json, sys; o = json.load(sys.stdin); print($1)"; }

# Copies a series; false: to be tried again.
copy() {
    series=$(get "series/$1") || return $(($? != 22)) # 22: deleted meanwhile
    modality=$(printf %s "$series" | from_json 'o["MainDicomTags"].get("Modality", "")')
    case $modalities in *" $modality "*) ;; *) return 0 ;; esac
    part=$(dirname "$inbox")/.part-$1
    rm -rf "$part" "$part.zip"
    get "series/$1/archive" >"$part.zip" || return 1
    mkdir "$part"
    # Only the files: the archive's folders are named after the patient.
    unzip -qj "$part.zip" -d "$part" || return 1
    rm "$part.zip"
    mv -T "$part" "$inbox/$1.$(date +%s)"
}

# The next of Orthanc's changes; prints whether there are more (True, False). False: to be tried again.
follow() {
    last=$(cat "$state" 2>/dev/null || echo 0)
    changes=$(get "changes?since=$last&limit=100") || return 1
    for id in $(printf %s "$changes" |
        from_json '" ".join(c["ID"] for c in o["Changes"] if c["ChangeType"] == "StableSeries")'); do
        copy "$id" || return 1
    done
    printf %s "$changes" | from_json 'o["Last"]' >"$state.new"
    mv "$state.new" "$state"
    printf %s "$changes" | from_json 'not o["Done"]'
}

while :; do
    more=$(follow) || echo "from-orthanc.sh: a series could not be copied, to be tried again" >&2
    [ "$more" = True ] || sleep "$poll"
done
