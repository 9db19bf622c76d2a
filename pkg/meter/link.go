package meter

import "time"

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
	Moving       bool           `json:"moving,omitempty"` // it was given up by its gateway, and should be back at another in a moment
}

// Cancel withdraws a command; it travels on SubjectCancel.
type Cancel struct {
	ID CommandID `json:"id"`
}
