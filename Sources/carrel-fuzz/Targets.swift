import Glibc

/// A fuzz target: takes one input, must return and must not trap.
typealias FuzzTarget = @convention(c) (UnsafePointer<UInt8>?, Int) -> Void

let fuzzTargets: [String: FuzzTarget] = [
  handshakeTargets, firmwareTargets, displayTargets, displayLinkTargets, inputAndStorageTargets,
  controlTargets, viewerTargets, completionTargets, imageTargets,
  networkTargets,
].reduce(into: [:]) { all, some in all.merge(some) { first, _ in first } }

/// One input as the targets like it.
func input(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> [UInt8] {
  // SAFETY: libFuzzer passes `count` readable bytes that live until the target returns.
  Array(UnsafeBufferPointer(start: bytes, count: count))
}
