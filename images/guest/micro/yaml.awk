# Flatten block-style YAML to lines "path=value": keys joined by dots, list items by their number.
#
#   ethernets:                        ethernets.nic0.match.macaddress=02:00:00:00:00:01
#     nic0:                           ethernets.nic0.addresses.0=10.0.1.5/24
#       match:
#         macaddress: "02:00:00:00:00:01"
#       addresses:
#         - 10.0.1.5/24
#
# Understands what a YAML library writes for plain documents: nested maps and lists, quoted scalars, comments.
# Flow collections and block scalars are passed on as they stand.

function path(   i, text) {
	text = names[1]
	for (i = 2; i <= depth; i++) text = text "." names[i]
	return text
}

function push(name, column, item) {
	depth++
	names[depth] = name
	columns[depth] = column
	items[depth] = item
	counts[depth] = 0
}

# The value of a scalar as written: quotes and their escapes undone, a trailing comment of a bare word dropped.
function scalar(text,   out, i, c) {
	if (text ~ /^'.*'$/) {
		text = substr(text, 2, length(text) - 2)
		gsub(/''/, "'", text)
		return text
	}
	if (text ~ /^".*"$/) {
		out = ""
		for (i = 2; i < length(text); i++) {
			c = substr(text, i, 1)
			if (c == "\\") c = substr(text, ++i, 1)
			out = out c
		}
		return out
	}
	sub(/[ \t]+#.*$/, "", text)
	return text
}

# The length of a leading "key:" (with its colon), 0 when the text is no mapping entry.
function key_length(text) {
	if (match(text, /^"[^"]*":( |$)/) || match(text, /^'[^']*':( |$)/)) return RLENGTH - (text ~ /^("[^"]*"|'[^']*'):$/ ? 0 : 1)
	if (text ~ /^["']/) return 0
	if (match(text, /^[^ #:][^:]*:$/)) return RLENGTH
	if (match(text, /^[^ #:][^:]*: /)) return RLENGTH - 1
	return 0
}

{
	sub(/[ \t\r]+$/, "")
	match($0, /^ */)
	column = RLENGTH
	text = substr($0, column + 1)
	if (text == "" || text ~ /^#/ || text ~ /^---/ || text ~ /^%/) next

	while (text ~ /^-( |$)/) {
		# A list may stand in the same column as its key, so a key there stays and an item there is a sibling.
		while (depth > 0 && (columns[depth] > column || (columns[depth] == column && items[depth]))) depth--
		number = counts[depth]++
		push(number, column, 1)
		match(text, /^- */)
		column += RLENGTH
		text = substr(text, RLENGTH + 1)
	}
	if (text == "") next

	length_of_key = key_length(text)
	if (length_of_key == 0) {
		print path() "=" scalar(text)
		next
	}
	while (depth > 0 && columns[depth] >= column) depth--
	push(scalar(substr(text, 1, length_of_key - 1)), column, 0)
	value = substr(text, length_of_key + 1)
	sub(/^ +/, "", value)
	if (value != "" && value !~ /^#/) print path() "=" scalar(value)
}
