#!/bin/sh
# The commit of this checkout in twelve digits, without git, which builder images lack; "dev" where there is none.
git=${1:-.git}
head=$(cat "$git/HEAD" 2>/dev/null)
case $head in
"ref: "*)
	ref=${head#ref: }
	head=$(cat "$git/$ref" 2>/dev/null || sed -n "s|^\([0-9a-f]*\) $ref\$|\1|p" "$git/packed-refs" 2>/dev/null)
	;;
esac
printf '%.12s\n' "${head:-dev}"
