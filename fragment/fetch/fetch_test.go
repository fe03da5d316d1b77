package fetch

import (
	"testing"

	"github.com/oscorelay/oscorelay/fragment"
)

func TestDownload(t *testing.T) {
	for name, l := range map[string]fragment.Layout{
		"1024":     {Unit: 10, Page: 10},
		"LPWAN":    {Unit: 8, Page: 8},
		"mixed":    {Unit: 8, Page: 10},
		"4096":     {Unit: 12, Page: 12},
		"smallest": {Unit: 6, Page: 6},
		"outboard": {Unit: 10, Page: 10, Outboard: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelease(t, 50_001, 6, l)
			c, flash := r.job(t, r.uri(r.serve(t), l))
			res := complete(t, c, flash, r.image)
			if res.Forged != 0 || res.Resumed != 0 {
				t.Fatalf("%+v", res)
			}
			t.Logf("%+v", res)
		})
	}
}
