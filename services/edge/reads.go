package edge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/dianchao/dianchao/pkg/meter"
)

// bodyTime is how long a client may take to send a request's body.
const bodyTime = 10 * time.Second

// event is one answer on its way to an HTTP client.
type event struct {
	stage  meter.Stage
	answer []byte
}

// requester is the asker of one HTTP request. Stages may get lost when its client reads slowly, the answer may not.
type requester struct {
	stages chan event
	answer chan event
}

func newRequester() requester {
	return requester{make(chan event, 16), make(chan event, 1)}
}

func (q requester) deliver(_ *command, stage meter.Stage, answer []byte) {
	if stage.Terminal() {
		q.answer <- event{stage, answer}
		return
	}
	select {
	case q.stages <- event{stage, answer}:
	default:
	}
}

// serveRead answers one read: as one JSON object, or as a stream of its stages.
func (e *Edge) serveRead(w http.ResponseWriter, r *http.Request) {
	ask, tooLarge, err := readBody(w, r)
	if ask.Command.ID.IsZero() {
		ask.Command.ID, _ = meter.ParseCommandID(uuid.NewString()) // a UUID is a legal id
	}
	if err != nil {
		status := http.StatusBadRequest
		if tooLarge {
			status = http.StatusRequestEntityTooLarge
		}
		writeBody(w, status, failedAnswer(ask, meter.AsError(err)))
		return
	}
	stream := strings.Contains(r.Header.Get("Accept"), "text/event-stream")
	ask.Command.Stages = ask.Command.Stages && stream

	q := newRequester()
	s, refused := e.open(dialectHTTP, q.deliver)
	if refused != nil {
		w.Header().Set("Retry-After", "5")
		writeBody(w, http.StatusServiceUnavailable, failedAnswer(ask, refused))
		return
	}
	defer e.roster.remove(s)
	s.parent = e.traceparent(r.Header)
	if refused := s.ask(ask); refused != nil {
		writeBody(w, statuses[refused.Code], failedAnswer(ask, refused))
		return
	}
	if stream {
		e.streamEvents(w, r, q)
		return
	}
	select {
	case a := <-q.answer:
		writeBody(w, answerStatus(a), a.answer)
	case <-r.Context().Done(): // the client is gone
	}
}

// readBody reads and parses a request's body. tooLarge says that the error is its size.
func readBody(w http.ResponseWriter, r *http.Request) (ask read, tooLarge bool, err error) {
	deadline := http.NewResponseController(w)
	if err := deadline.SetReadDeadline(time.Now().Add(bodyTime)); err != nil {
		return read{}, false, fmt.Errorf("set a deadline for the body: %w", err)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, meter.MaxCommandBytes))
	if err != nil {
		var size *http.MaxBytesError
		if errors.As(err, &size) {
			return read{}, true, meter.Errorf(meter.CodeBadCommand, "the body has more than %d bytes", meter.MaxCommandBytes)
		}
		return read{}, false, meter.Errorf(meter.CodeBadCommand, "the body could not be read: %v", err)
	}
	// The server goes on reading to notice that the client left; that must not time out while the read goes on.
	if err := deadline.SetReadDeadline(time.Time{}); err != nil {
		return read{}, false, fmt.Errorf("take back the body's deadline: %w", err)
	}
	ask, err = parseRead(body)
	return ask, false, err
}

// answerStatus is the HTTP status of a terminal answer.
func answerStatus(a event) int {
	if a.stage == meter.StageDone {
		return http.StatusOK
	}
	var failed struct {
		Error meter.Error `json:"error"`
	}
	if err := json.Unmarshal(a.answer, &failed); err != nil || statuses[failed.Error.Code] == 0 {
		return http.StatusInternalServerError
	}
	return statuses[failed.Error.Code]
}

// streamEvents sends what comes as server-sent events until the answer was sent or the client is gone.
func (e *Edge) streamEvents(w http.ResponseWriter, r *http.Request, q requester) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx collects a stream otherwise
	w.WriteHeader(http.StatusOK)
	connection := http.NewResponseController(w)
	if connection.Flush() != nil {
		return
	}
	write := func(v event) bool {
		return connection.SetWriteDeadline(time.Now().Add(e.pace.write)) == nil &&
			writeEvent(w, v) == nil && connection.Flush() == nil
	}
	for {
		select {
		case v := <-q.stages:
			if !write(v) {
				return
			}
		case last := <-q.answer:
			// Both may have been waiting: the stages were first.
			for len(q.stages) > 0 {
				if !write(<-q.stages) {
					return
				}
			}
			write(last)
			return
		case <-r.Context().Done():
			return
		}
	}
}

// writeEvent writes one server-sent event. A line break ends an event's data, so the answer is put on one line.
func writeEvent(w io.Writer, v event) error {
	var line bytes.Buffer
	if err := json.Compact(&line, v.answer); err != nil {
		return fmt.Errorf("compact an answer: %w", err)
	}
	_, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", v.stage, &line)
	return err
}
