import Foundation

/// Key press → changed pixel at the viewer, in milliseconds, and what the viewer
/// itself used of a CPU meanwhile.
func measureLatency(_ settings: Settings) throws -> [Comparison] {
  var results: [Comparison] = []
  for encoding in VNCPeer.Encoding.allCases {
    var samples: [Server: Samples] = [:]
    var viewerCPU: [Server: Samples] = [:]
    for _ in 0..<settings.rounds {
      for server in Server.allCases {
        try server.withScene("flip", settings, encoding: encoding) { _, viewer in
          // The first presses settle the server's adaptive polling and the caches; a
          // site may still show its status screen.
          try pressUntilFlipped(viewer)
          for _ in 0..<5 { _ = try pressAndWait(viewer) }
          let (start, cpu) = (Clock.seconds, Clock.threadCPU)
          while Clock.seconds < start + settings.secondsPerRound {
            samples[server, default: Samples()].add(try pressAndWait(viewer) * 1000)
            // A person's rhythm, and out of step with any timer of either server.
            try idle(viewer, seconds: Double.random(in: 0.03...0.09))
          }
          let used = (Clock.threadCPU - cpu) / (Clock.seconds - start) * 100
          viewerCPU[server, default: Samples()].add(used)
        }
      }
    }
    for (name, fraction, bound) in [("p50", 0.5, 0.2), ("p95", 0.95, 1.0 / 3)] {
      results += compare("key to pixel, \(encoding.rawValue), \(name)", unit: "ms", bound: bound) {
        samples[$0]?.quantile(fraction) ?? 0
      }
    }
    results += compare("  the viewer's own CPU meanwhile", unit: "%") {
      viewerCPU[$0]?.median ?? 0
    }
  }
  return results
}

/// One row for each way of running ours beside QEMU's value.
func compare(
  _ name: String, unit: String, bound: Double? = nil, higherIsBetter: Bool = false,
  _ value: (Server) -> Double
) -> [Comparison] {
  [Server.carrel, .site].map { server in
    Comparison(
      "\(name), \(server.title)", unit: unit, ours: value(server), peer: value(.qemu),
      bound: bound, higherIsBetter: higherIsBetter)
  }
}

/// Presses and releases the space bar; returns seconds until the block flipped.
private func pressAndWait(_ viewer: VNCPeer) throws -> Double {
  let before = viewer.pixel(FlipBlock.x, FlipBlock.y)
  let start = Clock.seconds
  viewer.sendKey(0x20, pressed: true)
  viewer.sendKey(0x20, pressed: false)
  while differs(viewer.pixel(FlipBlock.x, FlipBlock.y), before) == false {
    try viewer.pump(microseconds: 1_000_000)
    guard Clock.seconds - start < 5 else { throw BenchError("the block did not flip in 5 s") }
  }
  return Clock.seconds - start
}

private func pressUntilFlipped(_ viewer: VNCPeer) throws {
  for _ in 0..<50 {
    let before = viewer.pixel(FlipBlock.x, FlipBlock.y)
    viewer.sendKey(0x20, pressed: true)
    viewer.sendKey(0x20, pressed: false)
    try idle(viewer, seconds: 0.2)
    let after = viewer.pixel(FlipBlock.x, FlipBlock.y)
    if [0, 0xFF].contains(after & 0xFF), differs(after, before) { return }
  }
  throw BenchError("no key made the block flip")
}

/// Whether two colours differ by more than a lossy encoding would make them.
func differs(_ first: UInt32, _ second: UInt32) -> Bool {
  stride(from: UInt32(0), to: 24, by: 8).contains { shift in
    abs(Int(first >> shift & 0xFF) - Int(second >> shift & 0xFF)) > 64
  }
}

func idle(_ viewer: VNCPeer, seconds: Double) throws {
  let deadline = Clock.seconds + seconds
  while Clock.seconds < deadline {
    try viewer.pump(microseconds: UInt32(max(0, deadline - Clock.seconds) * 1e6))
  }
}

/// Distinct bar-coded frames a second at 1024x768, and what the viewer cost.
func measureFrames(_ settings: Settings) throws -> [Comparison] {
  var results: [Comparison] = []
  for encoding in VNCPeer.Encoding.allCases {
    var rates: [Server: Samples] = [:]
    var viewerCPU: [Server: Samples] = [:]
    for _ in 0..<settings.rounds {
      for server in Server.allCases {
        try server.withScene("fullscreen", settings, encoding: encoding) { _, viewer in
          try idle(viewer, seconds: 1)
          let (start, cpu) = (Clock.seconds, Clock.threadCPU)
          let seen = try countFrames(viewer, seconds: settings.secondsPerRound)
          let elapsed = Clock.seconds - start
          rates[server, default: Samples()].add(Double(seen) / elapsed)
          viewerCPU[server, default: Samples()].add((Clock.threadCPU - cpu) / elapsed * 100)
        }
      }
    }
    results += compare(
      "distinct frames, \(encoding.rawValue)", unit: "/s", bound: 1.5, higherIsBetter: true
    ) { rates[$0]?.median ?? 0 }
    results += compare("  the viewer's own CPU meanwhile", unit: "%") {
      viewerCPU[$0]?.median ?? 0
    }
  }
  return results
}

private func countFrames(_ viewer: VNCPeer, seconds: Double) throws -> Int {
  var seen = Set<UInt32>()
  var decoded = viewer.updates
  let deadline = Clock.seconds + seconds
  while Clock.seconds < deadline {
    try viewer.pump(microseconds: 100_000)
    guard viewer.updates != decoded else { continue }
    decoded = viewer.updates
    if let number = BarCode.read(viewer) { seen.insert(number) }
  }
  return seen.count
}
