"""What the tests stand on: servers, databases lent to one test, and the run that shares them."""
