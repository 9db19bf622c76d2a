package clicktocopy

import (
	"encoding/json"
	"fmt"

	"github.com/dianchao/dianchao/pkg/driver"
	"github.com/dianchao/dianchao/pkg/meter"
)

// Names of the dialect's fields. They are case-sensitive.
const (
	concentratorField = "ConcentratorNo"
	meterField        = "WaterMtrAddress"
	volumeField       = "AccumVal"
)

// exchange is one request for the volume of one meter. The dialect has no serial number: a late answer of the
// same meter cannot be told from the one asked for.
type exchange struct {
	concentrator meter.ConcentratorID
	meter        meter.Address
}

// Request implements driver.Link.
func (link) Request(c meter.ConcentratorID, m meter.Address) driver.Exchange { return exchange{c, m} }

// Frame implements driver.Exchange. Concentrator and meter are ASCII by their types, so the text is GB2312 as it is.
func (x exchange) Frame() []byte {
	return fmt.Appendf(nil, `{"%s":"%s","%s":"%s","%s":0.0,"IsDownCommand":false}`,
		concentratorField, x.concentrator, meterField, x.meter, volumeField)
}

// Judge implements driver.Exchange.
func (x exchange) Judge(frame []byte) driver.Verdict {
	text, err := decode(frame)
	if err != nil {
		return driver.Verdict{Foreign: "no GB18030 text: " + err.Error()}
	}
	// A struct would take "accumval" for AccumVal.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return driver.Verdict{Foreign: "no JSON object: " + err.Error()}
	}
	concentrator, hasConcentrator := scalar(fields[concentratorField])
	address, hasMeter := scalar(fields[meterField])
	if !hasConcentrator || !hasMeter {
		return driver.Verdict{Foreign: fmt.Sprintf("an object without %s and %s", concentratorField, meterField)}
	}
	if concentrator != x.concentrator.String() {
		return driver.Verdict{Foreign: fmt.Sprintf("concentrator %.40s answered", concentrator)}
	}
	if address != x.meter.String() {
		return driver.Verdict{Foreign: fmt.Sprintf("meter %.40s answered", address)}
	}
	volume, err := readVolume(fields[volumeField])
	if err != nil {
		return driver.Verdict{Err: meter.Errorf(meter.CodeBadAnswer, "meter %s of concentrator %s: %v", x.meter, x.concentrator, err)}
	}
	return driver.Verdict{Reading: &meter.Reading{Volume: &volume}}
}

// readVolume reads AccumVal digit for digit, so that 123.45 does not become the nearest binary fraction.
func readVolume(raw json.RawMessage) (meter.Decimal, error) {
	s, ok := scalar(raw)
	if !ok {
		return meter.Decimal{}, fmt.Errorf("the answer has no number in %s", volumeField)
	}
	volume, err := meter.ParseDecimal(s)
	if err != nil {
		return volume, fmt.Errorf("%s: %s", volumeField, meter.AsError(err).Message)
	}
	if s[0] == '-' {
		return volume, fmt.Errorf("%s is %s, a volume cannot be negative", volumeField, volume)
	}
	return volume, nil
}

// scalar returns the text of a JSON string or number; some servers put the one where the dialect has the other.
func scalar(raw json.RawMessage) (s string, ok bool) {
	if json.Unmarshal(raw, &s) == nil && len(raw) > 0 && raw[0] == '"' {
		return s, true
	}
	var n json.Number
	if json.Unmarshal(raw, &n) == nil && n != "" {
		return n.String(), true
	}
	return "", false
}
