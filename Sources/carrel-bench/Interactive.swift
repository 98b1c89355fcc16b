import Foundation

/// Key press → changed pixel at the viewer, in milliseconds.
func measureLatency(_ settings: Settings) throws -> [Comparison] {
  var results: [Comparison] = []
  for encoding in VNCPeer.Encoding.allCases {
    var samples: [Server: Samples] = [.carrel: Samples(), .qemu: Samples()]
    for _ in 0..<settings.rounds {
      for server in Server.allCases {
        try server.withScene("flip", settings, encoding: encoding) { _, viewer in
          let deadline = Clock.seconds + settings.secondsPerRound
          // The first presses settle the server's adaptive polling and the caches.
          for _ in 0..<5 { _ = try pressAndWait(viewer) }
          while Clock.seconds < deadline {
            samples[server]?.add(try pressAndWait(viewer) * 1000)
            // A person's rhythm, and out of step with any timer of either server.
            try idle(viewer, seconds: Double.random(in: 0.03...0.09))
          }
        }
      }
    }
    let ours = samples[.carrel] ?? Samples()
    let peer = samples[.qemu] ?? Samples()
    results.append(
      Comparison(
        "key to pixel, \(encoding.rawValue), p50", unit: "ms", ours: ours.median,
        peer: peer.median, bound: 0.2))
    results.append(
      Comparison(
        "key to pixel, \(encoding.rawValue), p95", unit: "ms", ours: ours.quantile(0.95),
        peer: peer.quantile(0.95), bound: 1.0 / 3))
  }
  return results
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

/// Whether two colours differ by more than a lossy encoding would make them.
private func differs(_ first: UInt32, _ second: UInt32) -> Bool {
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
    var rates: [Server: Samples] = [.carrel: Samples(), .qemu: Samples()]
    var viewerCPU: [Server: Samples] = [.carrel: Samples(), .qemu: Samples()]
    for _ in 0..<settings.rounds {
      for server in Server.allCases {
        try server.withScene("fullscreen", settings, encoding: encoding) { _, viewer in
          try idle(viewer, seconds: 1)
          var seen = Set<UInt32>()
          var decoded = viewer.updates
          let start = Clock.seconds
          let cpu = Clock.threadCPU
          while Clock.seconds - start < settings.secondsPerRound {
            try viewer.pump(microseconds: 100_000)
            guard viewer.updates != decoded else { continue }
            decoded = viewer.updates
            if let number = BarCode.read(viewer) { seen.insert(number) }
          }
          let elapsed = Clock.seconds - start
          rates[server]?.add(Double(seen.count) / elapsed)
          viewerCPU[server]?.add((Clock.threadCPU - cpu) / elapsed * 100)
        }
      }
    }
    results.append(
      Comparison(
        "distinct frames, \(encoding.rawValue)", unit: "/s", ours: rates[.carrel]?.median ?? 0,
        peer: rates[.qemu]?.median ?? 0, bound: 1.5, higherIsBetter: true))
    results.append(
      Comparison(
        "  the viewer's own CPU meanwhile", unit: "%", ours: viewerCPU[.carrel]?.median ?? 0,
        peer: viewerCPU[.qemu]?.median ?? 0))
  }
  return results
}
