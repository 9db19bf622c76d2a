package meter

import (
	"cmp"
	"time"
)

// LinkState is whether a concentrator's link is up.
type LinkState uint8

const (
	LinkUp LinkState = iota + 1
	LinkDown
)

var linkStates = newNames("link state", map[LinkState]string{LinkUp: "up", LinkDown: "down"})

func (s LinkState) String() string                { return linkStates.text(s) }
func (s LinkState) MarshalText() ([]byte, error)  { return linkStates.marshal(s) }
func (s *LinkState) UnmarshalText(b []byte) error { return linkStates.unmarshal(s, b) }

// Link says which gateway holds a concentrator's link and since when, or since when nobody does. It is the
// message on SubjectLink and the value in BucketLinks.
type Link struct {
	Concentrator ConcentratorID `json:"concentrator"`
	State        LinkState      `json:"state"`
	Since        time.Time      `json:"since"`
	Gateway      GatewayID      `json:"gateway"`
	Driver       string         `json:"driver"`
	Remote       string         `json:"remote,omitempty"` // the concentrator's address as the gateway sees it
	Reason       string         `json:"reason,omitempty"` // why it went down
	Moving       bool           `json:"moving,omitempty"` // its connection broke or was given up by its gateway: it should be back in a moment
}

// MovingPatience is how long commands wait for a concentrator whose link is moving before they are answered as Offline.
// A gateway that is cut off is given up after 5 s at the earliest and sends its concentrators away after 10 s.
const MovingPatience = 8 * time.Second

// Offline is the answer to a command for a concentrator whose link nobody holds. l is what was last known of it; the zero
// Link if nothing is.
func (l Link) Offline(c ConcentratorID) *Error {
	since := l.Since.Local().Format("2006-01-02 15:04:05 -07:00")
	switch {
	case l.State == 0:
		return Errorf(CodeConcentratorOffline, "concentrator %s is offline and never was online: check its number, its power and SIM card, and the address it dials", c)
	case l.State == LinkUp:
		return Errorf(CodeConcentratorOffline, "concentrator %s is offline: gateway %s, which held its link since %s, is gone; ask again once the concentrator has dialled in elsewhere", c, l.Gateway, since)
	case l.Moving && time.Since(l.Since) < time.Minute:
		return Errorf(CodeConcentratorOffline, "concentrator %s is offline since %s (%s) and has not dialled in again yet: ask again in a minute", c, since, l.Reason)
	default:
		return Errorf(CodeConcentratorOffline, "concentrator %s is offline since %s (%s): check its power and SIM card", c, since, cmp.Or(l.Reason, "no reason known"))
	}
}

// Cancel withdraws a command; it travels on SubjectCancel.
type Cancel struct {
	ID CommandID `json:"id"`
}
