#!/bin/sh
# check.sh: a translation is well-formed, its format strings agree, and nothing is left untranslated or uncertain.
#   sh check.sh FILE.po
command -v msgfmt > /dev/null 2>&1 || { echo "SKIP: msgfmt is not installed"; exit 77; }
report=$(LC_ALL=C msgfmt -c --statistics -o /dev/null "$1" 2>&1) || { echo "$report"; exit 1; }
echo "$report"
case $report in *untranslated*|*fuzzy*) exit 1 ;; esac
