package meter

import (
	"strconv"
	"strings"
	"time"
)

// Subjects of the contract that hold for all concentrators or edges.
const (
	SubjectReads     = "meter.read.*"    // the first gateway listens
	SubjectCancels   = "meter.cancel.*"  // gateways listen
	SubjectLinks     = "meter.link.*"    // edges and people listen
	SubjectAllFrames = "meter.frames.*"  // gateways listen
	SubjectReadings  = "meter.reading.>" // the stream READINGS listens
)

// Names of what JetStream holds.
const (
	BucketLinks    = "links"
	BucketGateways = "gateways"
	StreamReadings = "READINGS"
)

// HeaderDeadline carries a command's absolute deadline in milliseconds since 1970 (UTC). It wins over
// timeout_ms. The machines' clocks must agree to well below a second.
const HeaderDeadline = "Dianchao-Deadline"

// Queue is the queue group of the gateways on SubjectRead.
const Queue = "gateway"

// SubjectRead is where the gateway that holds concentrator's link takes commands.
func SubjectRead(c ConcentratorID) string { return "meter.read." + c.text }

// SubjectGateway is where a gateway answers, with nothing, as long as it lives.
func SubjectGateway(g GatewayID) string { return "meter.gateway." + g.text }

// SubjectCancel is where every gateway hears that a command of concentrator is withdrawn.
func SubjectCancel(c ConcentratorID) string { return "meter.cancel." + c.text }

// SubjectFrames is where the gateway that holds concentrator's link, or held it last, tells what went over it.
func SubjectFrames(c ConcentratorID) string { return "meter.frames." + c.text }

// SubjectLink is where a gateway tells that concentrator's link came up or went down.
func SubjectLink(c ConcentratorID) string { return "meter.link." + c.text }

// SubjectReading is where a gateway publishes every reading that came off concentrator's wire.
func SubjectReading(c ConcentratorID) string { return "meter.reading." + c.text }

// SubjectReply is where the answers to one command of one session go.
func SubjectReply(e EdgeID, s SessionID, c CommandID) string {
	return "meter.reply." + e.text + "." + s.text + "." + c.text
}

// SubjectReplies is the one wildcard that an edge node holds.
func SubjectReplies(e EdgeID) string { return "meter.reply." + e.text + ".>" }

// ParseReply takes apart a SubjectReply. It returns false if subject is none.
func ParseReply(subject string) (s SessionID, c CommandID, ok bool) {
	rest, ok := strings.CutPrefix(subject, "meter.reply.")
	if !ok {
		return s, c, false
	}
	_, rest, ok = strings.Cut(rest, ".")
	if !ok {
		return s, c, false
	}
	session, command, ok := strings.Cut(rest, ".")
	if !ok {
		return s, c, false
	}
	s, err := ParseSessionID(session)
	if err != nil {
		return s, c, false
	}
	c, err = ParseCommandID(command)
	return s, c, err == nil
}

// ConcentratorOf returns the concentrator that stands last in subject, or CodeBadCommand.
func ConcentratorOf(subject string) (ConcentratorID, error) {
	return ParseConcentratorID(subject[strings.LastIndexByte(subject, '.')+1:])
}

// FormatDeadline is a deadline as HeaderDeadline carries it.
func FormatDeadline(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// ParseDeadline reads a HeaderDeadline; CodeBadCommand if it is no number of milliseconds.
func ParseDeadline(s string) (time.Time, error) {
	ms, err := strconv.ParseInt(s, 10, 64)
	if err != nil || ms < 0 {
		return time.Time{}, Errorf(CodeBadCommand, "the header %s is %.40q, it must be milliseconds since 1970", HeaderDeadline, s)
	}
	return time.UnixMilli(ms), nil
}
