package meter

import "fmt"

// token is a name that can stand in a NATS subject: ASCII letters, digits, '-' and '_', at least one and at
// most as many as its rule allows. The zero value names nothing.
type token[R tokenRule] struct{ text string }

type tokenRule interface{ rule() (name string, max int) }

type (
	concentratorRule struct{}
	addressRule      struct{}
	commandRule      struct{}
	edgeRule         struct{}
	sessionRule      struct{}
	gatewayRule      struct{}
)

func (concentratorRule) rule() (string, int) { return "concentrator number", 32 }
func (addressRule) rule() (string, int)      { return "meter address", 32 }
func (commandRule) rule() (string, int)      { return "command id", 64 }
func (edgeRule) rule() (string, int)         { return "edge id", 64 }
func (sessionRule) rule() (string, int)      { return "session id", 64 }
func (gatewayRule) rule() (string, int)      { return "gateway id", 64 }

type (
	// ConcentratorID is a concentrator's number (集中器编号), as it names itself on its link. At most 32 characters.
	ConcentratorID = token[concentratorRule]
	// Address is a meter's address (水表地址) on the bus behind a concentrator. At most 32 characters; what a
	// protocol makes of it (length, padding) is its driver's business.
	Address = token[addressRule]
	// CommandID names one command; who asks again with the same id gets the same exchange. At most 64 characters.
	CommandID = token[commandRule]
	// EdgeID names an edge node. At most 64 characters.
	EdgeID = token[edgeRule]
	// SessionID names a client's connection to an edge node. At most 64 characters.
	SessionID = token[sessionRule]
	// GatewayID names a gateway. At most 64 characters.
	GatewayID = token[gatewayRule]
)

// ParseConcentratorID returns CodeBadCommand, naming the value, if s is no legal concentrator number.
func ParseConcentratorID(s string) (ConcentratorID, error) { return parseToken[concentratorRule](s) }

// ParseAddress returns CodeBadCommand, naming the value, if s is no legal meter address.
func ParseAddress(s string) (Address, error) { return parseToken[addressRule](s) }

// ParseCommandID returns CodeBadCommand, naming the value, if s is no legal command id.
func ParseCommandID(s string) (CommandID, error) { return parseToken[commandRule](s) }

// ParseEdgeID returns CodeBadCommand, naming the value, if s is no legal edge id.
func ParseEdgeID(s string) (EdgeID, error) { return parseToken[edgeRule](s) }

// ParseSessionID returns CodeBadCommand, naming the value, if s is no legal session id.
func ParseSessionID(s string) (SessionID, error) { return parseToken[sessionRule](s) }

// ParseGatewayID returns CodeBadCommand, naming the value, if s is no legal gateway id.
func ParseGatewayID(s string) (GatewayID, error) { return parseToken[gatewayRule](s) }

func parseToken[R tokenRule](s string) (token[R], error) {
	var r R
	name, limit := r.rule()
	if s == "" {
		return token[R]{}, Errorf(CodeBadCommand, "%s is missing", name)
	}
	if len(s) > limit {
		return token[R]{}, Errorf(CodeBadCommand, "%s %.40q is longer than %d characters", name, s, limit)
	}
	for i := range len(s) {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '-' || c == '_') {
			return token[R]{}, Errorf(CodeBadCommand, "%s %q may hold only letters, digits, '-' and '_'", name, s)
		}
	}
	return token[R]{s}, nil
}

func (t token[R]) String() string { return t.text }

// IsZero reports whether the value names nothing.
func (t token[R]) IsZero() bool { return t.text == "" }

// MarshalText implements encoding.TextMarshaler; the zero value is the empty text.
func (t token[R]) MarshalText() ([]byte, error) { return []byte(t.text), nil }

// UnmarshalText implements encoding.TextUnmarshaler and refuses what the type's parser refuses.
func (t *token[R]) UnmarshalText(b []byte) (err error) {
	*t, err = parseToken[R](string(b))
	return err
}

var _ fmt.Stringer = ConcentratorID{}
