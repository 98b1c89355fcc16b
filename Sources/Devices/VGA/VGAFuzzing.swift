import DeviceModel

/// Drives an adapter from a byte string, as a hostile guest would.
package enum VGAFuzzing {
  /// What a run left behind.
  package struct Outcome {
    package fileprivate(set) var pictures = 0
    /// Every scan-out and damage lay inside its memory, and nothing outside of video
    /// memory and surface was written.
    package fileprivate(set) var isSound = true
  }

  fileprivate static let videoMemorySize = 1 << 20

  /// Replays `input` on a fresh adapter.
  package static func run(_ input: [UInt8]) -> Outcome {
    let clock = FuzzClock()
    let videoMemory = GuardedBytes(videoMemorySize)
    let surface = GuardedBytes(VGA.minimumSurfaceSize)
    var outcome = Outcome()
    guard
      let vga = try? VGA(videoMemory: videoMemory, renderedSurface: surface, clock: clock)
    else {
      outcome.isSound = false
      return outcome
    }
    var reader = Reader(input: input)
    var current = vga
    while let operation = reader.byte() {
      switch (operation & 0x7F) % 12 {
      case 0...2:
        current.ports.write(
          offset: UInt64(reader.value(1) % 0x30), width: 1, value: reader.value(1))
      case 3: current.extensionPorts.write(offset: 0, width: 2, value: reader.value(1))
      case 4, 5: current.extensionPorts.write(offset: 1, width: 2, value: reader.value(2))
      case 6:
        current.window.write(
          offset: reader.value(3) & 0x1FFFF, width: 4, value: reader.value(4))
      case 7: _ = current.window.read(offset: reader.value(3) & 0x1FFFF, width: 8)
      case 8:
        let width = 1 << Int(reader.value(1) & 1)
        current.registerBlock.write(
          offset: reader.value(2) & 0xFFF, width: width, value: reader.value(2))
        current.registerBlock.write(offset: 0x604, width: 4, value: reader.value(4))
      case 9:
        _ = current.registerBlock.read(offset: reader.value(2) & 0xFFF, width: 4)
        _ = current.ports.read(offset: UInt64(reader.value(1) % 0x30), width: 1)
      case 10:
        clock.now &+= reader.value(4)
        // Painting is slow next to everything else; enough is enough.
        guard outcome.pictures < 16 else { break }
        let dirty = DirtyPages(pageCount: 256, allDirty: operation & 0x80 != 0)
        outcome.check(current.refresh(dirtyVideoMemory: dirty))
      default:
        if operation & 0x80 != 0 { current.reset() }
        if let copy = try? VGA(
          videoMemory: videoMemory, renderedSurface: surface, clock: clock,
          state: current.saveState())
        {
          current = copy
        }
      }
    }
    outcome.check(current.refresh(dirtyVideoMemory: DirtyPages(pageCount: 256)))
    if !videoMemory.guardsAreIntact || !surface.guardsAreIntact { outcome.isSound = false }
    return outcome
  }

  private struct Reader {
    let input: [UInt8]
    var position = 0

    mutating func byte() -> UInt8? {
      guard position < input.count else { return nil }
      defer { position += 1 }
      return input[position]
    }

    /// `count` bytes, little-endian; zeros after the end.
    mutating func value(_ count: Int) -> UInt64 {
      (0..<count).reduce(0) { $0 | UInt64(byte() ?? 0) << UInt64($1 * 8) }
    }
  }
}

extension VGAFuzzing.Outcome {
  fileprivate mutating func check(_ update: ScanoutUpdate) {
    pictures += 1
    let scanout = update.scanout
    let size =
      scanout.source == .rendered ? VGA.minimumSurfaceSize : VGAFuzzing.videoMemorySize
    let rowBytes = scanout.width * scanout.format.bytesPerPixel
    let fits =
      scanout.offset >= 0 && scanout.width > 0 && scanout.height > 0
      && rowBytes <= scanout.stride && scanout.offset + scanout.stride * scanout.height <= size
    let contains = update.damage.allSatisfy {
      !$0.isEmpty && $0.x >= 0 && $0.y >= 0 && $0.x + $0.width <= scanout.width
        && $0.y + $0.height <= scanout.height
    }
    if !fits || !contains { isSound = false }
  }
}

/// Memory with margins that notice a write beside it.
private final class GuardedBytes: SharedBytes {
  private static let margin = 4096
  private static let pattern: UInt8 = 0xA5
  private let all: UnsafeMutableRawBufferPointer
  let bytes: UnsafeMutableRawBufferPointer

  init(_ count: Int) {
    // SAFETY: freed by deinit alone. Blocks of this size come from the kernel as
    // zeros; filling them would cost more than the rest of a run.
    all = .allocate(byteCount: count + 2 * Self.margin, alignment: Self.margin)
    bytes = UnsafeMutableRawBufferPointer(rebasing: all[Self.margin..<Self.margin + count])
    for index in 0..<Self.margin {
      all[index] = Self.pattern
      all[all.count - 1 - index] = Self.pattern
    }
  }

  deinit { all.deallocate() }

  var guardsAreIntact: Bool {
    (0..<Self.margin).allSatisfy {
      all[$0] == Self.pattern && all[all.count - 1 - $0] == Self.pattern
    }
  }
}

private final class FuzzClock: DeviceClock {
  var now: UInt64 = 0
  var wallClock: (seconds: Int64, nanoseconds: UInt32) { (0, 0) }

  func makeTimer(_ fire: @escaping () -> Void) -> any DeviceTimer { Timer() }

  private final class Timer: DeviceTimer {
    var deadline: UInt64? { nil }
    func arm(at deadline: UInt64) {}
    func cancel() {}
  }
}
