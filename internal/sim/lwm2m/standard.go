package lwm2m

import "fmt"

// Large is the length of what /19/0/0/0 holds at first, in bytes.
const Large = 20 * 1024

// LargeBody returns what /19/0/0/0 holds at first.
func LargeBody() []byte {
	b := make([]byte, Large)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// Security says what Objects 0 and 21 hold of the account.
type Security struct {
	URI       string
	OSCORE    bool
	SenderID  []byte
	Recipient []byte
}

// Standard returns a device's objects with their first values: the Security
// and OSCORE objects, which servers cannot reach and which hold no secret here,
// Server, Device, Firmware Update, Location, two containers, and as many
// temperature sensors as sensors says.
func Standard(lifetime int64, binding string, sensors int, sec Security) *Objects {
	o := NewObjects(
		&Object{ID: 0, Version: "1.1", Hidden: true, Resources: map[uint16]Definition{
			0: {"LwM2M Server URI", String, RW, false, true}, 1: {"Bootstrap-Server", Boolean, RW, false, true},
			2: {"Security Mode", Integer, RW, false, true}, 10: {"Short Server ID", Integer, RW, false, false},
			17: {"OSCORE Security Mode", Objlnk, RW, false, false},
		}},
		&Object{ID: 1, Version: "1.1", Resources: map[uint16]Definition{
			0: {"Short Server ID", Integer, R, false, true}, 1: {"Lifetime", Integer, RW, false, true},
			2: {"Default Minimum Period", Integer, RW, false, false}, 3: {"Default Maximum Period", Integer, RW, false, false},
			6: {"Notification Storing", Boolean, RW, false, true}, 7: {"Binding", String, RW, false, true},
			8: {"Registration Update Trigger", None, E, false, true}, 23: {"Mute Send", Boolean, RW, false, false},
		}},
		&Object{ID: 3, Version: "1.1", Resources: map[uint16]Definition{
			0: {"Manufacturer", String, R, false, false}, 1: {"Model Number", String, R, false, false},
			2: {"Serial Number", String, R, false, false}, 3: {"Firmware Version", String, R, false, false},
			4: {"Reboot", None, E, false, true}, 5: {"Factory Reset", None, E, false, false},
			6: {"Available Power Sources", Integer, R, true, false}, 7: {"Power Source Voltage", Integer, R, true, false},
			9: {"Battery Level", Integer, R, false, false}, 10: {"Memory Free", Integer, R, false, false},
			11: {"Error Code", Integer, R, true, true}, 12: {"Reset Error Code", None, E, false, false},
			13: {"Current Time", Time, RW, false, false}, 14: {"UTC Offset", String, RW, false, false},
			15: {"Timezone", String, RW, false, false}, 16: {"Supported Binding and Modes", String, R, false, true},
			22: {"ExtDevInfo", Objlnk, R, true, false},
		}},
		&Object{ID: 5, Resources: map[uint16]Definition{
			0: {"Package", Opaque, W, false, true}, 1: {"Package URI", String, RW, false, true},
			2: {"Update", None, E, false, true}, 3: {"State", Integer, R, false, true},
			5: {"Update Result", Integer, R, false, true}, 6: {"PkgName", String, R, false, false},
			8: {"Protocol Support", Integer, R, true, false}, 9: {"Delivery Method", Integer, R, false, true},
		}},
		&Object{ID: 6, Resources: map[uint16]Definition{
			0: {"Latitude", Float, R, false, true}, 1: {"Longitude", Float, R, false, true}, 5: {"Timestamp", Time, R, false, true},
		}},
		&Object{ID: 19, Many: true, Resources: map[uint16]Definition{
			0: {"Data", Opaque, RW, true, true}, 1: {"Data Priority", Unsigned, RW, false, false},
			3: {"Data Description", String, RW, false, false},
		}},
		&Object{ID: 21, Hidden: true, Resources: map[uint16]Definition{
			1: {"OSCORE Sender ID", Opaque, W, false, true}, 2: {"OSCORE Recipient ID", Opaque, W, false, true},
		}},
		&Object{ID: 3303, Many: true, Resources: map[uint16]Definition{
			5601: {"Min Measured Value", Float, R, false, false}, 5602: {"Max Measured Value", Float, R, false, false},
			5605: {"Reset Min and Max Measured Values", None, E, false, false},
			5700: {"Sensor Value", Float, R, false, true}, 5701: {"Sensor Units", String, R, false, false},
			5750: {"Application Type", String, RW, false, false},
		}},
	)
	set := func(path string, v Value) {
		if err := o.Set(MustPath(path), v); err != nil {
			panic(err) // a mistake in the tables above
		}
	}
	set("/0/0/0", Str(sec.URI))
	set("/0/0/1", Bool(false))
	set("/0/0/2", Int(3)) // no transport security
	set("/0/0/10", Int(1))
	if sec.OSCORE {
		set("/0/0/17", Link(21, 0))
		set("/21/0/1", Bytes(sec.SenderID))
		set("/21/0/2", Bytes(sec.Recipient))
	}
	set("/1/0/0", Int(1))
	set("/1/0/1", Int(lifetime))
	set("/1/0/6", Bool(false))
	set("/1/0/7", Str(binding))
	set("/1/0/23", Bool(false))
	set("/3/0/0", Str("Open Mobile Device"))
	set("/3/0/1", Str("oscorelay sim"))
	set("/3/0/2", Str("345000123"))
	set("/3/0/3", Str("1.0"))
	set("/3/0/6/0", Int(1))
	set("/3/0/6/1", Int(5))
	set("/3/0/7/0", Int(3800))
	set("/3/0/7/1", Int(5000))
	set("/3/0/9", Int(100))
	set("/3/0/10", Int(15))
	set("/3/0/11/0", Int(0))
	set("/3/0/13", Seconds(1367491215))
	set("/3/0/14", Str("+02:00"))
	set("/3/0/15", Str("Europe/Paris"))
	set("/3/0/16", Str(binding))
	set("/3/0/22/0", Link(19, 0))
	set("/5/0/0", Bytes(nil))
	set("/5/0/1", Str(""))
	set("/5/0/3", Int(0))
	set("/5/0/5", Int(0))
	set("/5/0/8/0", Int(0))
	set("/5/0/9", Int(1)) // push
	set("/6/0/0", Num(43.5723))
	set("/6/0/1", Num(-7.25))
	set("/6/0/5", Seconds(1367491215))
	set("/19/0/0/0", Bytes(LargeBody()))
	set("/19/0/1", Uint(1))
	set("/19/1/0/0", Bytes([]byte("uplink")))
	for i := range sensors {
		at := fmt.Sprintf("/3303/%d", i)
		set(at+"/5700", Num(20.5+float64(i)))
		set(at+"/5701", Str("Cel"))
		set(at+"/5601", Num(-10.25))
		set(at+"/5602", Num(40))
		set(at+"/5750", Str(fmt.Sprintf("sensor %d", i)))
	}
	return o
}
