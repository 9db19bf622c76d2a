package simulator

import (
	"fmt"
	"time"

	"github.com/dianchao/dianchao/pkg/driver/cjt188"
	"github.com/dianchao/dianchao/pkg/meter"
)

// What the meters know beside the read of current data.
const (
	coldWater   cjt188.MeterType = 0x10
	readAddress byte             = 0x03
	addressDI   cjt188.DI        = 0x810A
)

// Bits of the first byte of ST.
const (
	statusValveClosed = 0x01
	statusBatteryLow  = 0x04
)

// anyMeter is the wildcard of the standard, for a bus with one meter.
var anyMeter = cjt188.Address{0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA}

// wakeUp is what a reply begins with; the standard allows two to four FE.
var wakeUp = []byte{0xFE, 0xFE}

// asked returns who on concentrator's bus has the address of a request. Nobody has another bus's, and several meters
// that answered the wildcard at once would only collide.
func (t Town) asked(concentrator int, request cjt188.Frame) (place, bool) {
	if request.Address == anyMeter {
		return place{concentrator, 1}, t.Meters == 1
	}
	p, ok := placeOf(request.Address.String())
	return p, ok && t.has(p) && p.concentrator == concentrator
}

// neighbour is another meter's place on the same bus. Behind a concentrator with one meter it is one that is not
// installed.
func (p place) neighbour(t Town) place {
	if t.Meters == 1 {
		return place{p.concentrator, p.meter + 1}
	}
	return place{p.concentrator, p.meter%t.Meters + 1}
}

// reply is the bytes with which the meter answers a request: the current data, its address, or its refusal of
// everything else.
func (p place) reply(request cjt188.Frame, now time.Time) []byte {
	request.Type, request.Address = coldWater, p.wireAddress()
	return p.replyFrame(request, now).Append(wakeUp[:len(wakeUp):len(wakeUp)])
}

func (p place) replyFrame(request cjt188.Frame, now time.Time) cjt188.Frame {
	di, _ := request.DI()
	switch {
	case request.Control == cjt188.Read && di == cjt188.CurrentData:
		answer, err := request.Answer(p.reading(now))
		if err != nil {
			panic(fmt.Sprintf("simulator: %v", err)) // eight digits always fit
		}
		return answer
	case request.Control == readAddress && di == addressDI:
		return cjt188.Frame{Type: request.Type, Address: request.Address, Control: readAddress | cjt188.Reply, Data: request.Data[:3]}
	}
	return request.Refuse(p.status()...)
}

// report is a reading that nobody asked for.
func (p place) report(serial byte, now time.Time) []byte {
	return p.reply(cjt188.Frame{
		Control: cjt188.Read,
		Data:    []byte{byte(cjt188.CurrentData >> 8), byte(cjt188.CurrentData & 0xFF), serial},
	}, now)
}

func (p place) wireAddress() cjt188.Address {
	a, err := cjt188.ParseAddress(fmt.Sprintf("%014d", p.concentrator*1000+p.meter))
	if err != nil {
		panic(err) // at most nine digits
	}
	return a
}

// reading is what the meter shows; its clock goes by the machine's zone.
func (p place) reading(now time.Time) meter.Reading {
	now = now.Local()
	volume := meter.NewDecimal(int64(p.steps(now)), volumeScale)
	settlement := meter.NewDecimal(int64(p.settlementSteps(now)), volumeScale)
	year, month, day := now.Date()
	clock, _ := meter.NewClock(year, int(month), day, now.Hour(), now.Minute(), now.Second())
	return meter.Reading{Volume: &volume, Settlement: &settlement, Clock: &clock, RawStatus: p.status()}
}

func (p place) status() []byte {
	status := []byte{0, 0}
	if p.valveClosed() {
		status[0] |= statusValveClosed
	}
	if p.batteryLow() {
		status[0] |= statusBatteryLow
	}
	return status
}
