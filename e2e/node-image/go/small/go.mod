module hami.io/e2e/small

go 1.24.0
