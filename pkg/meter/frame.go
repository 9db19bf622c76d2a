package meter

import "time"

// Direction is which way a frame went.
type Direction uint8

const (
	Down Direction = iota + 1 // to the concentrator
	Up                        // from it
)

var directions = newNames("direction", map[Direction]string{Down: "down", Up: "up"})

func (d Direction) String() string                { return directions.text(d) }
func (d Direction) MarshalText() ([]byte, error)  { return directions.marshal(d) }
func (d *Direction) UnmarshalText(b []byte) error { return directions.unmarshal(d, b) }

// FrameKind is what a frame was to the gateway.
type FrameKind uint8

const (
	FrameRequest      FrameKind = iota + 1 // down: asks a meter
	FrameReply                             // down: confirms what the concentrator sent
	FrameAnswer                            // up: the answer to the exchange on the wire
	FrameLate                              // up: the answer to one that had timed out
	FrameForeign                           // up: a valid frame that answers nothing we asked
	FrameNoise                             // up: no valid frame
	FrameRegistration                      // up
	FrameHeartbeat                         // up
)

var frameKinds = newNames("kind of frame", map[FrameKind]string{
	FrameRequest: "request", FrameReply: "reply", FrameAnswer: "answer", FrameLate: "late", FrameForeign: "foreign",
	FrameNoise: "noise", FrameRegistration: "registration", FrameHeartbeat: "heartbeat",
})

func (k FrameKind) String() string                { return frameKinds.text(k) }
func (k FrameKind) MarshalText() ([]byte, error)  { return frameKinds.marshal(k) }
func (k *FrameKind) UnmarshalText(b []byte) error { return frameKinds.unmarshal(k, b) }

// LoggedFrame is one frame of a link's log, or several equal ones in a row.
type LoggedFrame struct {
	At        time.Time `json:"at"` // of the last of them
	Direction Direction `json:"direction"`
	Kind      FrameKind `json:"kind"`
	Bytes     Hex       `json:"bytes"`
	Meaning   string    `json:"meaning,omitempty"`
	Count     int       `json:"count,omitempty"` // if more than one
}

// FrameLog answers on SubjectFrames.
type FrameLog struct {
	Concentrator ConcentratorID `json:"concentrator,omitzero"`
	Gateway      GatewayID      `json:"gateway,omitzero"`
	Frames       []LoggedFrame  `json:"frames,omitzero"`
	Error        *Error         `json:"error,omitempty"`
}

// Bounds of a FramesWish.
const (
	DefaultFrames  = 50
	MaxFrames      = 64
	MaxFramesWatch = time.Minute
)

// FramesWish asks for a link's log.
type FramesWish struct {
	Last  int           // how many of the frames kept
	Watch time.Duration // how long further ones are to be sent, too
}

// ParseFramesWish reads the request on SubjectFrames; an empty body is all defaults. It returns CodeBadCommand, naming
// the field, for what it cannot use.
func ParseFramesWish(b []byte) (FramesWish, error) {
	w := FramesWish{Last: DefaultFrames}
	if len(b) == 0 {
		return w, nil
	}
	var j struct {
		Last    *int   `json:"last"`
		WatchMS *int64 `json:"watch_ms"`
	}
	if err := DecodeJSON(b, &j); err != nil {
		return w, err
	}
	if j.Last != nil {
		w.Last = *j.Last
	}
	if w.Last < 0 || w.Last > MaxFrames {
		return w, Errorf(CodeBadCommand, `the field "last" is %d, it must be from 0 to %d`, w.Last, MaxFrames)
	}
	var err error
	w.Watch, err = milliseconds("watch_ms", j.WatchMS, 0, MaxFramesWatch, 0)
	return w, err
}
