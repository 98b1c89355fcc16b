import Glibc

/// A fuzz target: takes one input, must return and must not trap.
typealias FuzzTarget = @convention(c) (UnsafePointer<UInt8>?, Int) -> Void

let fuzzTargets: [String: FuzzTarget] = [:]
