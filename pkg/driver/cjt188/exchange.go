package cjt188

import (
	"fmt"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/meter"
)

// exchange is one request for the current data of one meter.
type exchange struct {
	request Frame
	serials SerialRule
}

// Request implements driver.Link. SER starts anywhere, so that an answer to a request before a reconnect is
// not taken for one after it, and then counts modulo 256.
func (l *link) Request(_ meter.ConcentratorID, m meter.Address) driver.Exchange {
	address, err := ParseAddress(m.String())
	if err != nil {
		panic("cjt188: not a canonical address: " + err.Error())
	}
	l.serial++
	return exchange{
		request: Frame{
			Type:    l.driver.MeterType,
			Address: address,
			Control: Read,
			Data:    append(l.driver.DIOrder.bytes(CurrentData), l.serial),
		},
		serials: l.driver.Serial,
	}
}

// Frame implements driver.Exchange.
func (x exchange) Frame() []byte { return x.request.Append([]byte{preamble, preamble}) }

// Judge implements driver.Exchange. T is not compared: meters asked as 20 answer as 25.
func (x exchange) Judge(b []byte) driver.Verdict {
	f, err := Parse(b)
	if err != nil {
		return driver.Verdict{Foreign: "not a frame: " + err.Error()}
	}
	if foreign := x.foreign(f); foreign != "" {
		return driver.Verdict{Foreign: foreign}
	}
	if f.Control&Refusal != 0 {
		status := f.Data
		if _, ok := f.Serial(); ok {
			status = f.Data[1:]
		}
		return driver.Verdict{Err: meter.Errorf(meter.CodeMeterRefused, "meter %s refuses the read with status %X", f.Address, status)}
	}
	r, err := f.Reading()
	if err != nil {
		return driver.Verdict{Err: meter.Errorf(meter.CodeBadAnswer, "meter %s sends what cannot be read: %v", f.Address, err)}
	}
	return driver.Verdict{Reading: r}
}

// foreign says why f is no answer to x; empty if it is one. What has to match: address, function, DI, SER.
func (x exchange) foreign(f Frame) string {
	if f.Control&Reply == 0 {
		return fmt.Sprintf("a request (control %02X) came back, not an answer", f.Control)
	}
	if f.Address != x.request.Address {
		return fmt.Sprintf("meter %s answered", f.Address)
	}
	answer, refusal := x.request.Control|Reply, x.request.Control|Reply|Refusal
	if f.Control == refusal {
		return x.foreignRefusal(f)
	}
	if f.Control != answer {
		return fmt.Sprintf("control %02X answered, expected %02X", f.Control, answer)
	}
	di, ok := f.DI()
	if len(f.Data) < 3 {
		return fmt.Sprintf("an answer of %d bytes, too short for DI and serial number", len(f.Data))
	}
	if !ok || di != CurrentData {
		return fmt.Sprintf("DI %s answered, asked for %s", di, CurrentData)
	}
	return x.foreignSerial(f)
}

// foreignRefusal: the standard's refusal is SER and two bytes ST, one vendor sends one byte without SER.
func (x exchange) foreignRefusal(f Frame) string {
	if len(f.Data) > 3 {
		return fmt.Sprintf("a refusal of %d bytes, it has at most 3", len(f.Data))
	}
	return x.foreignSerial(f)
}

func (x exchange) foreignSerial(f Frame) string {
	asked, _ := x.request.Serial()
	ser, ok := f.Serial()
	if !ok || ser == asked || x.serials == SerialAny {
		return ""
	}
	return fmt.Sprintf("serial number %02X answered, asked with %02X: a late answer, or a meter that never repeats it (then set --cjt188-serial=any)", ser, asked)
}
