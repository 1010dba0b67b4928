// Server runs in the pods of the cluster tests: plain answers that name the task, and trouble on demand.
//
// It is compiled by tests/cluster/harness/build.py into one static program, the image kecs.test/server:1.
//
// HTTP on PORT (8080):
//
//	/                        who answers: "VERSION TASK"
//	/bytes/N                 N bytes
//	/sink                    reads the body; answers its length
//	/hold-body?ms=N          leaves the body unread for N ms (a slow reader), then as /sink
//	/slow?ms=N               answers like / after N ms
//	/reset?after=N           announces a body, sends N bytes of it (0: not even a status), then resets
//	/listen?port=P&on=1|0    starts or stops an echo listener: a port that refuses after the start
//	/health                  200, or 503 after ?set=bad until ?set=ok
//	/env                     the environment, a variable a line
//	/log?line=TEXT           prints a line to standard output
//	/stats                   JSON: connections now open, requests begun, responses that could not be finished
//	/eat?mb=N                takes N MiB of memory and keeps it
//	/exit?code=N             ends at once with that code
//
// TCP, raw: ECHO_PORT (9090) echoes, and after the client's FIN still sends what is outstanding;
// HALF_PORT (9092) sends a line and closes its own half at once, then reads on and prints how much came;
// COUNT_PORT (9093) reads to the client's FIN and only then answers how many bytes came.
// UDP: UDP_PORT (9091) echoes each datagram. A port 0 is off.
//
// VERSION, KECS_TASK (default: the last part of KECS_TASK_ARN, or the host's name), DELAY_MS (how long nothing listens) and
// EXIT=CODE (end at once) are the other variables. On SIGTERM it takes no new connection, closes idle ones,
// lets requests in hand finish with "Connection: close" and ends with 0.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(log.Lmicroseconds)
	log.SetOutput(os.Stdout)
	if code := os.Getenv("EXIT"); code != "" {
		os.Exit(number(code, 1))
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	select {
	case <-time.After(time.Duration(number(os.Getenv("DELAY_MS"), 0)) * time.Millisecond):
	case <-stop.Done():
		return
	}
	for name, raw := range map[string]rawPort{
		"ECHO_PORT":  {9090, echo},
		"HALF_PORT":  {9092, half},
		"COUNT_PORT": {9093, count},
	} {
		if port := port(name, raw.number); port != 0 {
			if _, err := tcp(port, raw.talk); err != nil {
				log.Fatal(err)
			}
		}
	}
	if port := port("UDP_PORT", 9091); port != 0 {
		if err := udp(port); err != nil {
			log.Fatal(err)
		}
	}
	serve(stop, port("PORT", 8080))
	log.Print("ended")
}

// serve answers HTTP until stop is done and what was in hand is finished.
func serve(stop context.Context, number int) {
	if number == 0 {
		<-stop.Done()
		return
	}
	pages := newPages(who())
	server := &http.Server{Handler: pages.mux(), ConnState: pages.connection}
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", number))
	if err != nil {
		log.Fatal(err)
	}
	log.Print("listening ", number)
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
	<-stop.Done()
	log.Print("stopping")
	server.SetKeepAlivesEnabled(false)
	if err := server.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// rawPort is a TCP port without HTTP: where it is unless the environment says otherwise, and what it does.
type rawPort struct {
	number int
	talk   func(*net.TCPConn)
}

func who() string {
	host, _ := os.Hostname()
	arn := os.Getenv("KECS_TASK_ARN")
	task := cmp.Or(os.Getenv("KECS_TASK"), arn[strings.LastIndex(arn, "/")+1:], host)
	return cmp.Or(os.Getenv("VERSION"), "?") + " " + task
}

func port(name string, otherwise int) int {
	return number(os.Getenv(name), otherwise)
}

// number reads a number; what is none is otherwise.
func number(text string, otherwise int) int {
	if value, err := strconv.Atoi(text); err == nil {
		return value
	}
	return otherwise
}
