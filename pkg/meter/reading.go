package meter

import "time"

// Reading is what a meter said. A null field is one that the meter does not support or did not send.
type Reading struct {
	Volume     *Decimal `json:"volume_m3"`     // cumulative volume, m³
	Settlement *Decimal `json:"settlement_m3"` // cumulative volume at the settlement date, m³
	Clock      *Clock   `json:"clock"`
	Status     Status   `json:"status"`
	RawStatus  Hex      `json:"raw_status"` // the status bytes as sent, in wire order
	Heat       *Heat    `json:"heat,omitempty"`
}

// Heat is what a heat meter says beside its cumulative volume.
type Heat struct {
	Energy     *Quantity `json:"energy"`
	Settlement *Quantity `json:"settlement"`
	Power      *Quantity `json:"power"`
	Flow       *Quantity `json:"flow"`
	Supply     *Decimal  `json:"supply_c"` // supply temperature, °C
	Return     *Decimal  `json:"return_c"` // return temperature, °C
	Hours      *int64    `json:"hours"`    // working time, h
}

// Quantity is a number with the unit the meter sent: "kWh", "MJ", "kW", "m3/h" and the like.
type Quantity struct {
	Value Decimal `json:"value"`
	Unit  string  `json:"unit"`
}

// Status is the meter's status bits by name.
type Status struct {
	Valve   *Valve   `json:"valve"`
	Battery *Battery `json:"battery"`
}

// Valve is the state of a meter's valve.
type Valve uint8

const (
	ValveOpen Valve = iota + 1
	ValveClosed
	ValveMoving
	ValveAbnormal
)

var valves = newNames("valve state", map[Valve]string{
	ValveOpen: "open", ValveClosed: "closed", ValveMoving: "moving", ValveAbnormal: "abnormal",
})

func (v Valve) String() string                { return valves.text(v) }
func (v Valve) MarshalText() ([]byte, error)  { return valves.marshal(v) }
func (v *Valve) UnmarshalText(b []byte) error { return valves.unmarshal(v, b) }

// Battery is the state of a meter's battery.
type Battery uint8

const (
	BatteryOK Battery = iota + 1
	BatteryLow
)

var batteries = newNames("battery state", map[Battery]string{BatteryOK: "ok", BatteryLow: "low"})

func (b Battery) String() string                { return batteries.text(b) }
func (b Battery) MarshalText() ([]byte, error)  { return batteries.marshal(b) }
func (b *Battery) UnmarshalText(t []byte) error { return batteries.unmarshal(b, t) }

// Clock is a meter's own clock: a date and time without a zone, as its maker set it.
type Clock struct{ t time.Time }

const clockLayout = "2006-01-02T15:04:05"

// NewClock returns false if the numbers name no date and time.
func NewClock(year, month, day, hour, minute, second int) (Clock, bool) {
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	ok := t.Year() == year && int(t.Month()) == month && t.Day() == day &&
		t.Hour() == hour && t.Minute() == minute && t.Second() == second
	return Clock{t}, ok
}

func (c Clock) String() string { return c.t.Format(clockLayout) }

func (c Clock) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func (c *Clock) UnmarshalText(b []byte) (err error) {
	c.t, err = time.Parse(clockLayout, string(b))
	return err
}
