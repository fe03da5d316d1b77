package oscore

import (
	"iter"
	"strings"
)

// AttributeOSC is the web-linking attribute which tells that a resource is
// only accessible with OSCORE (§9). It has no value and stands once in a link.
const AttributeOSC = "osc"

// MarkLink returns the link-value ("</sensors/temp>;ct=60", RFC 6690 §2) with
// the osc attribute, once and without a value, whatever of it was there before.
func MarkLink(link string) string {
	var b strings.Builder
	first := true
	for part := range split(link, ';') {
		if !first && isOSC(part) {
			continue
		}
		if !first {
			b.WriteByte(';')
		}
		b.WriteString(part)
		first = false
	}
	return b.String() + ";" + AttributeOSC
}

// OSCLinks yields the targets of the links in an application/link-format
// document and whether each is marked as only accessible with OSCORE. As §9
// demands, a value given for the attribute is ignored, and so are repeats.
// What is no link is passed over: the attribute is a hint.
func OSCLinks(document string) iter.Seq2[string, bool] {
	return func(yield func(target string, osc bool) bool) {
		for link := range split(document, ',') {
			target, marked, first := "", false, true
			for part := range split(link, ';') {
				if first {
					target, first = strings.TrimSpace(part), false
				} else {
					marked = marked || isOSC(part)
				}
			}
			if len(target) < 2 || target[0] != '<' || strings.IndexByte(target[1:], '<') >= 0 || target[len(target)-1] != '>' {
				continue
			}
			if !yield(target[1:len(target)-1], marked) {
				return
			}
		}
	}
}

// isOSC reports whether a link parameter is the osc attribute, with or without
// a value. Names are compared without regard to case (RFC 8288 §3).
func isOSC(param string) bool {
	name, _, _ := strings.Cut(param, "=")
	return strings.EqualFold(strings.TrimSpace(name), AttributeOSC)
}

// split yields the parts of s between separators that stand outside "quotes"
// and <angle brackets> (RFC 6690 §2).
func split(s string, separator byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		start, quoted, target := 0, false, false
		for i := 0; i < len(s); i++ {
			switch c := s[i]; {
			case quoted && c == '\\':
				i++
			case c == '"' && !target:
				quoted = !quoted
			case quoted:
			case c == '<':
				target = true
			case c == '>':
				target = false
			case c == separator && !target:
				if !yield(s[start:i]) {
					return
				}
				start = i + 1
			}
		}
		yield(s[start:])
	}
}
