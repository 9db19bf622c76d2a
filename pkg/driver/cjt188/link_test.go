package cjt188_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/driver/cjt188"
)

const (
	frameHex   = "6810880527101520008116901F01000000002C000000002C0620170901172000008E16"
	anotherHex = "6810450000000000008116901F0100FE00002C000000002C0000000000000000005A16"
	loginHex   = "4C4F47494E3A333031" // LOGIN:301
)

func withHeartbeats(h ...cjt188.Heartbeat) cjt188.Driver {
	d := cjt188.New()
	d.Heartbeats = h
	return d
}

var (
	frame     = event{kind: driver.Frame, raw: frameHex}
	another   = event{kind: driver.Frame, raw: anotherHex}
	login     = event{kind: driver.Registration, raw: loginHex, name: "301"}
	heartbeat = event{kind: driver.Heartbeat, raw: "4C4F47"}
)

func noise(hex string) event { return event{kind: driver.Noise, raw: hex} }

func beat(hex string) event { return event{kind: driver.Heartbeat, raw: hex} }

// Every row holds however the bytes are cut in two, and byte by byte; sent names the bytes, blanks do not count.
func TestNext(t *testing.T) {
	head, tail := frameHex[:30], frameHex[30:]
	for name, row := range map[string]struct {
		driver cjt188.Driver
		sent   string
		want   []event
	}{
		"heartbeat alone":                      {cjt188.New(), "4C4F47", []event{heartbeat}},
		"registration, heartbeat, frame glued": {cjt188.New(), loginHex + "4C4F47" + frameHex, []event{login, heartbeat, frame}},
		"registration before every frame":      {cjt188.New(), loginHex + frameHex + loginHex + anotherHex, []event{login, frame, login, another}},
		"registration and line end":            {cjt188.New(), loginHex + "0D0A" + frameHex, []event{login, noise("0D0A"), frame}},
		"heartbeat in a frame":                 {cjt188.New(), head + "4C4F47" + tail, []event{frame}},
		"two heartbeats in a frame":            {cjt188.New(), head + "4C4F47" + tail[:8] + "4C4F474C4F47" + tail[8:], []event{frame}},
		"heartbeat before the frame's end":     {cjt188.New(), frameHex[:len(frameHex)-2] + "4C4F47" + "16", []event{frame}},
		"heartbeat 00 in a frame with 00":      {withHeartbeats("\x00"), head + "00" + tail, []event{frame}},
		"heartbeat FE in a frame with FE":      {withHeartbeats("\xFE"), anotherHex[:20] + "FE" + anotherHex[20:], []event{another}},
		"heartbeat FE is no preamble":          {withHeartbeats("\xFE"), "FE", []event{beat("FE")}},
		"heartbeat FE before a frame":          {withHeartbeats("\xFE"), "FE" + frameHex, []event{frame}},
		"heartbeats that begin alike":          {withHeartbeats("AB", "ABC"), "414243" + "4142" + frameHex, []event{beat("414243"), beat("4142"), frame}},
		"no heartbeats":                        {withHeartbeats(""), head + "4C4F47" + tail, nil},
		"preamble of 13":                       {cjt188.New(), strings.Repeat("FE", 13) + frameHex, []event{frame}},
		"preamble of 15":                       {cjt188.New(), strings.Repeat("FE", 15) + frameHex, []event{noise("FEFE"), frame}},
		"signal strength behind a frame":       {cjt188.New(), frameHex + "524F" + anotherHex, []event{frame, noise("524F"), another}},
		"number with illegal characters":       {cjt188.New(), "4C4F47494E3A2B", []event{beat("4C4F47"), noise("494E3A2B")}},
		"a prefix of a registration":           {cjt188.New(), "4C4F47494E3A", []event{beat("4C4F47"), noise("494E3A")}},
	} {
		t.Run(name, func(t *testing.T) {
			b := unhex(t, row.sent)
			bytewise := make([][]byte, len(b))
			cuts := [][][]byte{{b}, bytewise}
			for i := range b {
				bytewise[i] = b[i : i+1]
				cuts = append(cuts, [][]byte{b[:i], b[i:]})
			}
			for _, pieces := range cuts {
				got := feed(&row.driver, pieces)
				if row.want == nil {
					if count(got, driver.Frame)+count(got, driver.Heartbeat) > 0 {
						t.Fatalf("pieces %X are %v, want noise alone", pieces, got)
					}
					continue
				}
				if !slices.Equal(got, row.want) {
					t.Fatalf("pieces %X are\n %v, want\n %v", pieces, got, row.want)
				}
			}
		})
	}
}

// What looks like the beginning of a frame must not hold up the whole frame behind it.
func TestNextFindsTheFrameBehindAFalseStart(t *testing.T) {
	for name, before := range map[string]string{
		"68 and a small L":             "68000000000000000000" + "40",
		"68 alone":                     "68",
		"half a frame":                 frameHex[:40],
		"half a frame, half heartbeat": frameHex[:40] + "4C4F",
		"registration without number":  "4C4F47494E3A",
		"many 68":                      strings.Repeat("68", 40),
	} {
		t.Run(name, func(t *testing.T) {
			d := cjt188.New()
			link := d.NewLink(false)
			b := unhex(t, before+frameHex)
			for len(b) > 0 {
				e, n := link.Next(b, false)
				if n == 0 {
					t.Fatalf("% X waits for more", b)
				}
				if e.Kind == driver.Frame {
					return
				}
				b = b[n:]
			}
			t.Fatal("the frame was not found")
		})
	}
}

func TestNextWaits(t *testing.T) {
	for name, sent := range map[string]string{
		"part of a registration":        "4C4F47494E3A33",
		"a registration that may go on": loginHex,
		"a heartbeat that may go on":    "4C4F47",
		"part of a heartbeat":           "4C",
		"preamble":                      "FEFE",
		"part of a frame":               frameHex[:20],
		"all but the end":               frameHex[:len(frameHex)-2],
		"a heartbeat where CS belongs":  frameHex[:len(frameHex)-4] + "4C4F",
		"a heartbeat where L belongs":   frameHex[:20] + "4C4F47" + frameHex[20:40],
	} {
		t.Run(name, func(t *testing.T) {
			d := cjt188.New()
			link := d.NewLink(false)
			b := unhex(t, sent)
			if e, n := link.Next(b, false); n != 0 {
				t.Errorf("taken for %v, %d bytes", e, n)
			}
			if _, n := link.Next(b, true); n == 0 {
				t.Errorf("nothing comes of it in a silence")
			}
		})
	}
}

// However hostile the bytes, a window of them is enough to decide; without a heartbeat's help or with it.
func TestNextNeverWaitsForMoreThanTheWindow(t *testing.T) {
	d := withHeartbeats("\x00", "\x68\x10", "LOG")
	link := d.NewLink(false)
	for name, unit := range map[string]string{
		"starts": "\x68", "preambles": "\xFE", "heartbeats in a frame": "\x00", "starts and heartbeats": "\x68\x10",
		"registrations": "LOGIN:", "digits": "1", "a header": "\x68\x10\x01\x02\x03\x04\x05\x06\x07\x81\x64",
	} {
		for _, first := range []string{"", "\x68", "\x68\x10\x01\x02\x03\x04\x05\x06\x07\x81\x64", "LOGIN:"} {
			b := append([]byte(first), bytes.Repeat([]byte(unit), d.Traits().MaxFrame)...)
			if _, n := link.Next(b[:d.Traits().MaxFrame], false); n == 0 {
				t.Errorf("%s after %q: %d bytes stand incomplete", name, first, d.Traits().MaxFrame)
			}
		}
	}
}

func FuzzNext(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(unhex(f, v.Hex), uint8(7))
	}
	for _, s := range []string{loginHex + "4C4F47", frameHex[:30] + "4C4F47" + frameHex[30:], "4C4F" + frameHex + "FE00", anotherHex[:20] + "00FE" + anotherHex[20:]} {
		f.Add(unhex(f, s), uint8(1))
	}
	drivers := []cjt188.Driver{cjt188.New(), withHeartbeats("\x00", "\xFE", "LOG"), withHeartbeats()}
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		for i := range drivers {
			d := &drivers[i]
			link := d.NewLink(size%2 == 0)
			var pending []byte
			drain := func(quiet bool) {
				for len(pending) > 0 {
					e, n := link.Next(pending, quiet)
					if n < 0 || n > len(pending) || n == 0 && (quiet || len(pending) >= d.Traits().MaxFrame) {
						t.Fatalf("Next(% X, %v) took %d bytes", pending, quiet, n)
					}
					if n == 0 {
						return
					}
					if e.Kind == driver.Frame {
						if _, err := cjt188.Parse(e.Raw); err != nil {
							t.Fatalf("frame % X: %v", e.Raw, err)
						}
					}
					pending = pending[n:]
				}
			}
			for piece := range slices.Chunk(b, int(size)+1) {
				pending = append(pending, piece...)
				drain(false)
			}
			drain(true)
		}
	})
}
