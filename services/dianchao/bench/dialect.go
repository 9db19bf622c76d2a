package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/dianchao/dianchao/pkg/meter"
	"github.com/dianchao/dianchao/services/simulator"
)

// dialect is how a client speaks to what is measured.
type dialect struct {
	name         string
	subprotocols []string
	greets       bool // its first message is no answer
	path         func(client int) string
	question     func(id string, e simulator.Entry) string
	judge        func(c click) error // errFailed, errWrong, or nil for a right answer
}

var (
	errFailed = errors.New("no reading")
	// errWrong is an answer for another meter or another click, or a volume that the meter never showed.
	errWrong = errors.New("a wrong answer")
)

var (
	floorDialect       = dialect{"floor", nil, false, devicePath, askClickToCopy, judgeFloor}
	clickToCopyDialect = dialect{"ClickToCopy", nil, true, rootPath, askClickToCopy, judgeClickToCopy}
	sessionDialect     = dialect{"dianchao.v1", []string{"dianchao.v1"}, true, rootPath, askSession, judgeSession}
)

func rootPath(int) string { return "/" }

func devicePath(client int) string { return "/?device=" + strconv.Itoa(client%concentrators) }

func askClickToCopy(_ string, e simulator.Entry) string {
	return `{"ModuleName":"ClickToCopy","Content":{"ConcentratorNo":"` + e.Concentrator.String() + `","WaterMtrAddress":"` + e.Meter.String() + `"}}`
}

func askSession(id string, e simulator.Entry) string {
	return `{"type":"read","id":"` + id + `","concentrator":"` + e.Concentrator.String() + `","meter":"` + e.Meter.String() + `","stages":false}`
}

func judgeFloor(c click) error {
	if string(c.answer) != floorAnswer {
		return errWrong
	}
	return nil
}

func judgeClickToCopy(c click) error {
	var a struct {
		ConcentratorNo, WaterMtrAddress string
		AccumVal                        json.Number
	}
	if err := json.Unmarshal(c.answer, &a); err != nil {
		return errFailed // in a line of Chinese
	}
	volume, err := meter.ParseDecimal(a.AccumVal.String())
	if err != nil || a.ConcentratorNo != c.entry.Concentrator.String() || a.WaterMtrAddress != c.entry.Meter.String() {
		return errWrong
	}
	return c.judgeVolume(volume)
}

func judgeSession(c click) error {
	var a struct {
		Type string
		meter.Answer
	}
	err := json.Unmarshal(c.answer, &a)
	switch {
	case err != nil || a.Type != "answer":
		return errFailed
	case a.ID.String() != c.id || a.Concentrator != c.entry.Concentrator || a.Meter != c.entry.Meter:
		return errWrong
	case a.Reading == nil || a.Reading.Volume == nil:
		return errFailed
	}
	return c.judgeVolume(*a.Reading.Volume)
}

// judgeVolume returns errWrong unless the simulated meter showed this volume within a minute of the answer.
func (c click) judgeVolume(volume meter.Decimal) error {
	shown := func(at time.Time) meter.Decimal { return simulator.Volume(c.entry.Concentrator, c.entry.Meter, at) }
	if volume.Cmp(shown(c.at.Add(-time.Minute))) < 0 || volume.Cmp(shown(c.at.Add(time.Minute))) > 0 {
		return errWrong
	}
	return nil
}

// explain adds what was asked and what came.
func (c click) explain(err error) error {
	return fmt.Errorf("%w for meter %s of concentrator %s: %.300s", err, c.entry.Meter, c.entry.Concentrator, c.answer)
}
