package meter

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// refused expects CodeBadCommand (or another code) and a message that names the culprit.
func refused(t *testing.T, err error, code Code, names string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Message, names) {
		t.Fatalf("got %v, want %s naming %q", err, code, names)
	}
}

func TestTokens(t *testing.T) {
	for _, legal := range []string{"101", "a-b_C9", strings.Repeat("9", 32)} {
		c, err := ParseConcentratorID(legal)
		if err != nil || c.String() != legal || c.IsZero() {
			t.Errorf("%q: %v", legal, err)
		}
	}
	for _, illegal := range []string{"", "1.2", "*", ">", "1 2", "一", "a\x00", strings.Repeat("9", 33)} {
		_, err := ParseConcentratorID(illegal)
		refused(t, err, CodeBadCommand, "concentrator number")
	}
	_, err := ParseAddress("10 1")
	refused(t, err, CodeBadCommand, `"10 1"`)
	var id CommandID
	refused(t, json.Unmarshal([]byte(`"a.b"`), &id), CodeBadCommand, "a.b")
}

func TestParseCommand(t *testing.T) {
	c, err := ParseCommand([]byte(` {"meter":"101001","unknown":[1]}`))
	want := Command{Meter: must(ParseAddress("101001")), Timeout: DefaultTimeout, Lane: LaneInteractive}
	if err != nil || c != want {
		t.Fatalf("%+v %v", c, err)
	}
	full := Command{
		ID: must(ParseCommandID("x")), Meter: want.Meter, Timeout: 2 * time.Second, MaxAge: time.Minute, Lane: LaneBatch, Stages: true,
	}
	if again, err := ParseCommand(must(json.Marshal(full))); err != nil || again != full {
		t.Fatalf("%+v %v", again, err)
	}
	for _, row := range []struct{ name, body, want string }{
		{"nothing", ``, "JSON object"},
		{"no object", `"101001"`, "JSON object"},
		{"cut off", `{"meter":`, "JSON"},
		{"two values", `{"meter":"1"} {}`, "JSON"},
		{"no meter", `{}`, `"meter"`},
		{"meter is null", `{"meter":null}`, `"meter"`},
		{"meter is a number", `{"meter":101001}`, `"meter"`},
		{"illegal meter", `{"meter":"1.1"}`, "1.1"},
		{"empty id", `{"meter":"1","id":""}`, "command id"},
		{"illegal id", `{"meter":"1","id":"a b"}`, "a b"},
		{"timeout zero", `{"meter":"1","timeout_ms":0}`, "timeout_ms"},
		{"timeout over", `{"meter":"1","timeout_ms":120001}`, "timeout_ms"},
		{"timeout fraction", `{"meter":"1","timeout_ms":1.5}`, "timeout_ms"},
		{"age negative", `{"meter":"1","max_age_ms":-1}`, "max_age_ms"},
		{"unknown lane", `{"meter":"1","lane":"fast"}`, "fast"},
		{"too large", `{"meter":"1","x":"` + strings.Repeat("x", MaxCommandBytes) + `"}`, "4096"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := ParseCommand([]byte(row.body))
			refused(t, err, CodeBadCommand, row.want)
		})
	}
	t.Run("the id survives", func(t *testing.T) {
		if c, err := ParseCommand([]byte(`{"id":"x","meter":"1","timeout_ms":0}`)); err == nil || c.ID.String() != "x" {
			t.Fatalf("%+v %v", c, err)
		}
	})
}

func TestDecimals(t *testing.T) {
	for _, row := range []struct{ in, want string }{
		{"120.00", "120.00"}, {"0", "0"}, {"-1.5", "-1.5"}, {"1.2345E2", "123.45"}, {"1E3", "1000"}, {"000.10", "0.10"},
	} {
		if d, err := ParseDecimal(row.in); err != nil || d.String() != row.want {
			t.Errorf("%s: %s %v", row.in, d, err)
		}
	}
	for _, bad := range []string{"", "x", "NaN", "Infinity", "1e999999999", "1e-999999999", strings.Repeat("9", 25), strings.Repeat("9", 100), "0x10"} {
		_, err := ParseDecimal(bad)
		refused(t, err, CodeBadAnswer, "")
	}
	if NewDecimal(12345, 2).String() != "123.45" || NewDecimal(5, 0).String() != "5" {
		t.Error("NewDecimal")
	}
	if NewDecimal(15, 1).Cmp(NewDecimal(150, 2)) != 0 || !NewDecimal(-1, 0).Negative() {
		t.Error("Cmp or Negative")
	}
}

func TestAnswersReadAsTheContractShowsThem(t *testing.T) {
	volume, settlement := NewDecimal(12345, 2), NewDecimal(12000, 2)
	clock, ok := NewClock(2026, 11, 22, 16, 0, 1)
	if !ok {
		t.Fatal("clock")
	}
	open, low := ValveOpen, BatteryLow
	a := Answer{
		ID: must(ParseCommandID("x")), Concentrator: must(ParseConcentratorID("101")), Meter: must(ParseAddress("101001")),
		Stage: StageDone, Source: SourceWire, At: time.Date(2026, 11, 22, 8, 0, 0, 123e6, time.UTC),
		Reading: &Reading{Volume: &volume, Settlement: &settlement, Clock: &clock, Status: Status{&open, &low}, RawStatus: Hex{0, 4}},
		Frames:  &Frames{Sent: Hex{0xFE, 0x68}, Received: Hex{0x68}},
		Timing:  &Timing{0, 41, 43}, Gateway: must(ParseGatewayID("gw-1")),
	}
	const want = `{"id":"x","concentrator":"101","meter":"101001","stage":"done","source":"wire","at":"2026-11-22T08:00:00.123Z",` +
		`"reading":{"volume_m3":"123.45","settlement_m3":"120.00","clock":"2026-11-22T16:00:01","status":{"valve":"open","battery":"low"},"raw_status":"0004"},` +
		`"frames":{"sent":"FE68","received":"68"},"timing_ms":{"queue":0,"wire":41,"total":43},"gateway":"gw-1"}`
	got := string(must(json.Marshal(a)))
	if got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	var again Answer
	if err := json.Unmarshal([]byte(got), &again); err != nil || string(must(json.Marshal(again))) != want {
		t.Fatalf("%v", err)
	}
	nothing := must(json.Marshal(Reading{}))
	if string(nothing) != `{"volume_m3":null,"settlement_m3":null,"clock":null,"status":{"valve":null,"battery":null},"raw_status":""}` {
		t.Fatalf("%s", nothing)
	}
	failed := must(json.Marshal(Answer{Stage: StageFailed, Error: Errorf(CodeMeterSilent, "m")}))
	if string(failed) != `{"stage":"failed","error":{"code":"meter_silent","message":"m","retry":true}}` {
		t.Fatalf("%s", failed)
	}
}

func TestNothingIllegalIsEncodedOrDecoded(t *testing.T) {
	if _, err := json.Marshal(Answer{}); err == nil {
		t.Error("an answer without a stage was encoded")
	}
	for _, bad := range []string{`{"stage":"lost"}`, `{"stage":"done","source":"air"}`, `{"stage":"failed","error":{"code":"oops"}}`, `{"stage":"done","frames":{"sent":"F"}}`} {
		if err := json.Unmarshal([]byte(bad), &Answer{}); err == nil {
			t.Errorf("%s was decoded", bad)
		}
	}
	if _, ok := NewClock(2026, 2, 29, 0, 0, 0); ok {
		t.Error("29 February 2026 is a date")
	}
	if Code(200).String() != "error code 200" || LinkState(0).String() != "link state 0" {
		t.Error("an unknown value has no name")
	}
}

func TestCodes(t *testing.T) {
	never := map[Code]bool{CodeBadCommand: true, CodeMeterRefused: true, CodeCancelled: true}
	for _, c := range Codes() {
		var again Code
		if err := again.UnmarshalText([]byte(c.String())); err != nil || again != c {
			t.Errorf("%s: %v", c, err)
		}
		if c.Retry() == never[c] {
			t.Errorf("%s: retry %v", c, c.Retry())
		}
	}
	if n := len(Codes()); n != 13 {
		t.Errorf("%d codes", n)
	}
	if e := AsError(errors.New("x")); e.Code != CodeInternal || e.Message != "x" {
		t.Errorf("%v", e)
	}
}

func TestSubjects(t *testing.T) {
	c, e := must(ParseConcentratorID("101")), must(ParseEdgeID("e-1"))
	s, id := must(ParseSessionID("s")), must(ParseCommandID("x"))
	for got, want := range map[string]string{
		SubjectRead(c): "meter.read.101", SubjectCancel(c): "meter.cancel.101", SubjectLink(c): "meter.link.101",
		SubjectReading(c): "meter.reading.101", SubjectFrames(c): "meter.frames.101",
		SubjectReply(e, s, id): "meter.reply.e-1.s.x", SubjectReplies(e): "meter.reply.e-1.>",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if gs, gid, ok := ParseReply(SubjectReply(e, s, id)); !ok || gs != s || gid != id {
		t.Error("ParseReply")
	}
	for _, bad := range []string{"", "meter.reply.e", "meter.reply.e.s", "meter.reply.e.s.", "meter.reply.e.s.x.y", "meter.read.101"} {
		if _, _, ok := ParseReply(bad); ok {
			t.Errorf("%q is a reply", bad)
		}
	}
	if got, err := ConcentratorOf("meter.read.101"); err != nil || got != c {
		t.Error(err)
	}
	at := time.UnixMilli(1764000000123)
	if got, err := ParseDeadline(FormatDeadline(at)); err != nil || !got.Equal(at) {
		t.Error(err)
	}
	_, err := ParseDeadline("-1")
	refused(t, err, CodeBadCommand, HeaderDeadline)
}

func FuzzParseCommand(f *testing.F) {
	for _, s := range []string{`{"meter":"101001"}`, `{"id":"x","meter":"1","timeout_ms":1,"max_age_ms":2,"lane":"batch","stages":true}`, `{}`, `[`, `{"meter":1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCommand(b)
		if err != nil {
			refused(t, err, CodeBadCommand, "")
			return
		}
		if c.Meter.IsZero() || c.Timeout <= 0 || c.Timeout > MaxTimeout || c.MaxAge < 0 || c.MaxAge > MaxAgeLimit {
			t.Fatalf("%+v", c)
		}
		if again, err := ParseCommand(must(json.Marshal(c))); err != nil || again != c {
			t.Fatalf("%+v became %+v: %v", c, again, err)
		}
	})
}

func FuzzParseDecimal(f *testing.F) {
	for _, s := range []string{"123.45", "1e9", "-0.0", "1e999999999", "NaN"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDecimal(s)
		if err != nil {
			return
		}
		if len(d.String()) > 3*decimalDigits {
			t.Fatalf("%q became %d characters", s, len(d.String()))
		}
		if again, err := ParseDecimal(d.String()); err != nil || again.Cmp(d) != 0 {
			t.Fatalf("%q became %s: %v", s, again, err)
		}
	})
}

func FuzzParseFramesWish(f *testing.F) {
	for _, s := range []string{"", `{"last":20,"watch_ms":1000}`, `{"last":-1}`, `{"last":1.5}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := ParseFramesWish(b)
		if err == nil && (w.Last < 0 || w.Last > MaxFrames || w.Watch < 0 || w.Watch > MaxFramesWatch) {
			t.Fatalf("%+v", w)
		}
	})
}
