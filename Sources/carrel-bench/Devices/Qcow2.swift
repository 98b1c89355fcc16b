import Disk
import Foundation
import LinuxSystem

/// The qcow2 engine beside `qemu-img bench`, with the same image and the same offsets in the
/// same order, all of it in the page cache; and beside pread and pwrite of a raw file. The
/// engine is called by one thread, one request at a time, while qemu-img has many under way.
func measureQcow2(_ settings: Settings) throws -> [Comparison] {
  let bench = try Qcow2Bench()
  defer { bench.remove() }
  return try bench.random(settings) + bench.sequential(settings)
}

private struct Qcow2Bench {
  static let blockSize = 4096
  static let depth = 32
  static let size: UInt64 = 256 << 20
  /// Steps that go all over an image, and never to the same cluster twice at first.
  static let step: UInt64 = 40503 * 4096
  static let largeSize: UInt64 = 64 << 30

  private let directory: String

  init() throws {
    directory = "build/carrel-bench-\(getpid())-qcow2"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
  }

  func remove() { try? FileManager.default.removeItem(atPath: directory) }

  private func path(_ name: String) -> String { "\(directory)/\(name)" }

  private enum Workload: CaseIterable {
    case readAllocated, writeAllocated, readUnallocated, readBacked, writeUnallocated, writeBacked

    var name: String {
      switch self {
      case .readAllocated: "read of 4 KiB of allocated clusters"
      case .writeAllocated: "write of 4 KiB to allocated clusters"
      case .readUnallocated: "read of 4 KiB of unallocated clusters"
      case .readBacked: "read of 4 KiB through an overlay"
      case .writeUnallocated: "write of 4 KiB to unallocated clusters"
      case .writeBacked: "write of 4 KiB to unallocated clusters of an overlay"
      }
    }

    var isWrite: Bool {
      switch self {
      case .writeAllocated, .writeUnallocated, .writeBacked: true
      default: false
      }
    }

    /// Of requests; those that allocate find clusters only so often.
    var count: Int {
      switch self {
      case .writeUnallocated: 8000
      case .writeBacked: 3000
      default: 100_000
      }
    }

    var size: UInt64 { self == .writeUnallocated ? Qcow2Bench.largeSize : Qcow2Bench.size }
  }

  func random(_ settings: Settings) throws -> [Comparison] {
    try ImageMark.write(path("base"), size: Int(Self.size))
    return try Workload.allCases.map { workload in
      var (ours, theirs) = (Samples(), Samples())
      for _ in 0..<max(3, settings.turns / 3) {
        try prepare(workload)
        ours.add(try engine(workload))
        try prepare(workload)
        theirs.add(try qemu(workload))
      }
      return Comparison(
        "qcow2 random \(workload.name)", unit: "/s", ours: ours.median, peer: theirs.median,
        bound: 1, higherIsBetter: true)
    }
  }

  /// A fresh image, as either of the two finds it.
  private func prepare(_ workload: Workload) throws {
    try? FileManager.default.removeItem(atPath: path("image"))
    var options = Qcow2Options(byteCount: workload.size)
    if [.readBacked, .writeBacked].contains(workload) { options.backing = .init("base", .raw) }
    try Qcow2Image.create(path("image"), options)
    if [.readAllocated, .writeAllocated].contains(workload) { try fill() }
  }

  private func fill() throws {
    let image = try Qcow2Image.open(path("image"), isReadOnly: false, BackingPolicy())
    let bytes = [UInt8](repeating: 0xA5, count: 1 << 20)
    for offset in stride(from: 0, to: Self.size, by: bytes.count) {
      // SAFETY: the buffer is used only within the call.
      try bytes.withUnsafeBytes { try image.write(from: [$0], offset: offset) }
    }
    try image.close()
  }

  /// As qemu-img goes on from one offset to the next.
  private func next(_ offset: UInt64, _ workload: Workload) -> UInt64 {
    (offset + Self.step) % (workload.size - UInt64(Self.blockSize))
  }

  private func engine(_ workload: Workload) throws -> Double {
    let image = try Qcow2Image.open(
      path("image"), isReadOnly: !workload.isWrite, BackingPolicy())
    var block = [UInt8](repeating: 0x5A, count: Self.blockSize)
    var offset: UInt64 = 0
    let start = Clock.seconds
    // SAFETY: the buffer is used only within the call.
    try block.withUnsafeMutableBytes { buffer in
      for _ in 0..<workload.count {
        if workload.isWrite {
          try image.write(from: [UnsafeRawBufferPointer(buffer)], offset: offset)
        } else {
          try image.read(into: [buffer], offset: offset)
        }
        offset = next(offset, workload)
      }
    }
    let seconds = Clock.seconds - start
    try image.close()
    return Double(workload.count) / seconds
  }

  private func qemu(_ workload: Workload) throws -> Double {
    let process = Process()
    let output = Foundation.Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments =
      [
        "qemu-img", "bench", "-f", "qcow2", "-c", "\(workload.count)", "-d", "\(Self.depth)",
        "-s", "\(Self.blockSize)", "-S", "\(Self.step)",
      ] + (workload.isWrite ? ["-w"] : []) + [path("image")]
    process.standardOutput = output
    try process.run()
    let text = String(
      decoding: try output.fileHandleForReading.readToEnd() ?? Data(), as: UTF8.self)
    process.waitUntilExit()
    guard let word = text.components(separatedBy: "Run completed in ").last,
      let seconds = Double(word.prefix { $0 != " " }), seconds > 0
    else { throw BenchError("qemu-img bench: \(text)") }
    return Double(workload.count) / seconds
  }

  /// Large requests, one after the other, to an image and to a raw file; and reads of the same
  /// pages of the image's own file. The page cache has a file that was written from its
  /// beginning in larger pieces than one whose data begins behind its tables: what it costs to
  /// read those is not the engine's doing.
  func sequential(_ settings: Settings) throws -> [Comparison] {
    try prepare(.readAllocated)
    let raw = try FileDescriptor.open(path("base"), [.writable])
    let image = try Qcow2Image.open(path("image"), isReadOnly: false, BackingPolicy())
    defer { try? image.close() }
    let own = try FileDescriptor.open(path("image"))
    // Its tables come first.
    let start = try own.size() - Self.size
    var bytes = [UInt8](repeating: 0x3C, count: 256 << 10)
    return try [false, true].flatMap { isWrite in
      var (ours, peer, floor) = (Samples(), Samples(), Samples())
      // A pass takes some hundredths of a second, within which others may be at work.
      for _ in 0..<settings.turns * 8 {
        // SAFETY: the buffer is used only within the call.
        try bytes.withUnsafeMutableBytes { buffer in
          ours.add(
            try pass(buffer.count) { offset in
              if isWrite {
                try image.write(from: [UnsafeRawBufferPointer(buffer)], offset: offset)
              } else {
                try image.read(into: [buffer], offset: offset)
              }
            })
          peer.add(
            try pass(buffer.count) { offset in
              if isWrite {
                try raw.write(UnsafeRawBufferPointer(buffer), offset: offset)
              } else {
                _ = try raw.read(into: buffer, offset: offset)
              }
            })
          if !isWrite {
            floor.add(
              try pass(buffer.count) { _ = try own.read(into: buffer, offset: start + $0) })
          }
        }
      }
      let name = isWrite ? "write" : "read"
      let comparison = Comparison(
        "qcow2 sequential \(name), beside a loop of p\(name)", unit: "MiB/s", ours: ours.median,
        peer: peer.median, bound: 0.95, higherIsBetter: true)
      guard !isWrite else { return [comparison] }
      return [
        comparison,
        Comparison(
          "  beside pread of the same pages of its file", unit: "MiB/s", ours: ours.median,
          peer: floor.median, higherIsBetter: true),
      ]
    }
  }

  private func pass(_ count: Int, _ body: (UInt64) throws -> Void) throws -> Double {
    let start = Clock.seconds
    for offset in stride(from: UInt64(0), to: Self.size, by: count) { try body(offset) }
    return Double(Self.size) / 1_048_576 / (Clock.seconds - start)
  }
}
