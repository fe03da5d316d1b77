package oscore

import (
	"fmt"
	"slices"
	"testing"

	"github.com/oscorelay/oscorelay/internal/proof"
)

func TestOSCLinks(t *testing.T) {
	proof.Checklist(t, "O-9-1")
	for document, wanted := range map[string][]string{
		"": nil,
		"</sensors/temp>;osc,</sensors/light>;if=\"sensor\"": {"/sensors/temp true", "/sensors/light false"}, // Figure 11
		"</a>;osc=1":                       {"/a true"}, // a value is ignored
		"</a>;osc=\"no\";osc;osc":          {"/a true"}, // so are repeats
		"</a>;OSC":                         {"/a true"},
		"</a>;osc;ct=60":                   {"/a true"},
		"</a>;osco,</b>;x-osc,</c>;rt=osc": {"/a false", "/b false", "/c false"},
		"</a>;title=\";osc,</x>;osc\"":     {"/a false"},
		"</a>;title=\"\\\";osc\";ct=0":     {"/a false"},
		"</a,b;osc>;ct=40 , </c> ; osc":    {"/a,b;osc false", "/c true"},
		"</a>":                             {"/a false"},
		"<>;osc":                           {" true"},
		"garbage,;osc,<,,</a>;osc":         nil,
		"garbage,;osc,</a>;osc":            {"/a true"},
	} {
		var got []string
		for target, osc := range OSCLinks(document) {
			got = append(got, fmt.Sprint(target, " ", osc))
		}
		if !slices.Equal(got, wanted) {
			t.Errorf("%s: %q, want %q", document, got, wanted)
		}
	}
	for range OSCLinks("</a>,</b>") {
		break
	}
}

func TestMarkLink(t *testing.T) {
	proof.Checklist(t, "O-9-1")
	for link, wanted := range map[string]string{
		"</a>":                     "</a>;osc",
		"</a>;ct=60":               "</a>;ct=60;osc",
		"</a>;osc":                 "</a>;osc",
		"</a>;osc=\"1\";ct=60;OSC": "</a>;ct=60;osc",
		"</a;osc>;title=\"x;osc\"": "</a;osc>;title=\"x;osc\";osc",
	} {
		if got := MarkLink(link); got != wanted {
			t.Errorf("MarkLink(%s) = %s, want %s", link, got, wanted)
		}
	}
}
