//go:build suite

// Package complement names the test suite, so that tidying go.mod keeps it. Nothing of the suite is copied here:
// `complement/run` has Go download and compile it.
package complement

import _ "github.com/matrix-org/complement"
