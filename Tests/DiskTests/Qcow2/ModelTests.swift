import Disk
import LinuxSystem
import TestSupport
import Testing

/// Random requests, with others' tools to say what came of them.
@Suite("qcow2 with others' tools", .needs("qemu-img", "qemu-io"))
struct ModelTests {
  struct Setting: CustomTestStringConvertible {
    var clusterSize: Int
    var version: UInt32 = 3
    var refcountBits = 16
    var isLazy = false
    var compression = Qcow2Options.Compression.zlib
    var base: (format: ImageFormat, byteCount: Int)?

    var testDescription: String {
      "clusters of \(clusterSize), version \(version), \(refcountBits) bits, \(compression)"
        + (isLazy ? ", lazy" : "") + (base.map { ", base \($0.format) of \($0.byteCount)" } ?? "")
    }
  }

  static let settings = [
    Setting(clusterSize: 512), Setting(clusterSize: 512, version: 2),
    Setting(clusterSize: 1024, refcountBits: 1), Setting(clusterSize: 2048, refcountBits: 2),
    Setting(clusterSize: 4096, refcountBits: 4, base: (.raw, 5_000_000)),
    Setting(clusterSize: 4096, version: 2, base: (.qcow2, 1_000_448)),
    Setting(clusterSize: 16384, refcountBits: 8, compression: .zstd),
    Setting(clusterSize: 65536), Setting(clusterSize: 65536, isLazy: true),
    Setting(clusterSize: 65536, refcountBits: 32, compression: .zstd, base: (.qcow2, 2_500_096)),
    Setting(clusterSize: 65536, isLazy: true, base: (.raw, 999_000)),
    Setting(clusterSize: 65536, version: 2), Setting(clusterSize: 2 << 20, refcountBits: 64),
    Setting(clusterSize: 2 << 20, base: (.raw, 3_000_000)),
  ]

  static let byteCount = 2_000_384

  /// An image, and what it is based on, made by qemu-img.
  private func make(
    _ setting: Setting, in bench: ImageBench, using generator: inout SeededGenerator
  ) throws -> [UInt8] {
    var options = [
      "cluster_size=\(setting.clusterSize)", "compat=\(setting.version == 2 ? "0.10" : "1.1")",
    ]
    if setting.version == 3 {
      options += [
        "lazy_refcounts=\(setting.isLazy ? "on" : "off")",
        "refcount_bits=\(setting.refcountBits)", "compression_type=\(setting.compression)",
      ]
    }
    var contents = [UInt8](repeating: 0, count: Self.byteCount)
    var base = ""
    if let (format, count) = setting.base {
      let bytes = [UInt8].random(count, using: &generator)
      try bench.directory.write(bytes, to: "base.raw")
      try bench.run("qemu-img convert -f raw -O \(format) base.raw base")
      contents.replaceSubrange(
        0..<min(count, Self.byteCount), with: bytes.prefix(Self.byteCount))
      base = "-b base -F \(format)"
    }
    try bench.run(
      "qemu-img create -q -f qcow2 -o \(options.joined(separator: ",")) \(base) disk"
        + " \(Self.byteCount)")
    return contents
  }

  private func range(using generator: inout SeededGenerator) -> Range<Int> {
    let sectors = Self.byteCount / 512
    let first = Int.random(in: 0..<sectors, using: &generator)
    let most = [4, 64, 1024].randomElement(using: &generator) ?? 4
    let count = min(sectors - first, Int.random(in: 1...most, using: &generator))
    return first * 512..<(first + count) * 512
  }

  @Test(
    "what is written here is read by qemu-img, and passes its check", arguments: settings)
  func ours(setting: Setting) throws {
    var generator = SeededGenerator(seed: 31)
    let bench = try ImageBench()
    var model = try make(setting, in: bench, using: &generator)
    var image = try bench.open("disk")
    for _ in 0..<100 {
      try change(image, &model, using: &generator)
      if Int.random(in: 0..<40, using: &generator) == 0 {
        try image.close()
        image = try bench.open("disk")
      }
    }
    #expect(try image.read(Self.byteCount, at: 0).difference(model) == nil)
    #expect(try image.check().errors == 0)
    try image.close()
    try bench.check("disk")
    #expect(try bench.contents("disk").difference(model) == nil)
    try bench.run("qemu-img compare -f qcow2 -F raw disk contents.raw")
    #expect(try bench.contents(ofOurs: "disk").difference(model) == nil)
  }

  private func change(
    _ image: Qcow2Image, _ model: inout [UInt8], using generator: inout SeededGenerator
  ) throws {
    let range = range(using: &generator)
    let offset = UInt64(range.lowerBound)
    switch Int.random(in: 0..<12, using: &generator) {
    case 0...5:
      let bytes = [UInt8].random(range.count, using: &generator)
      try image.write(bytes, at: offset)
      model.replaceSubrange(range, with: bytes)
    case 6:
      try image.discard(offset: offset, count: UInt64(range.count))
      // Anything, but the same from now on.
      model.replaceSubrange(range, with: try image.read(range.count, at: offset))
    case 7, 8:
      try image.writeZeroes(
        offset: offset, count: UInt64(range.count), mayDiscard: Bool.random(using: &generator))
      model.replaceSubrange(range, with: repeatElement(0, count: range.count))
    case 9: try image.flush()
    default:
      #expect(try image.read(range.count, at: offset).difference(Array(model[range])) == nil)
    }
  }

  @Test(
    "what qemu-io writes is read here, and can be written on", arguments: settings)
  func theirs(setting: Setting) throws {
    var generator = SeededGenerator(seed: 51)
    let bench = try ImageBench()
    _ = try make(setting, in: bench, using: &generator)
    var snapshots: [String] = []
    // QEMU compresses clusters only that are unallocated.
    let compressions = stride(from: 0, to: Self.byteCount - setting.clusterSize, by: 123 * 512)
      .map { $0 / setting.clusterSize }
    let compressed = Set(compressions).sorted().map {
      "-c 'write -q -c -P \($0 % 255 + 1) \($0 * setting.clusterSize) \(setting.clusterSize)'"
    }
    try bench.run("qemu-io -f qcow2 \(compressed.joined(separator: " ")) disk")
    for round in 0..<2 {
      let commands = (0..<30).map { _ in
        "-c '\(command(using: &generator))'"
      }
      try bench.run("qemu-io -f qcow2 -d unmap \(commands.joined(separator: " ")) disk")
      // Counts of fewer bits do not do for what compressed clusters share.
      if setting.refcountBits >= 8 {
        try bench.run("qemu-img snapshot -c shot\(round) disk")
        snapshots.append("shot\(round)")
      }
    }
    var model = try bench.contents("disk")
    let shots = try snapshots.map { try bench.contents("disk", snapshot: $0) }
    #expect(try bench.contents(ofOurs: "disk").difference(model) == nil)
    for (name, shot) in zip(snapshots, shots) {
      #expect(try bench.contents(ofOurs: "disk", snapshot: name).difference(shot) == nil)
    }
    let image = try bench.open("disk")
    #expect(try image.snapshots().map(\.name) == snapshots)
    for _ in 0..<40 { try change(image, &model, using: &generator) }
    #expect(try image.check().errors == 0)
    try image.close()
    try bench.check("disk")
    #expect(try bench.contents("disk").difference(model) == nil)
    for (name, shot) in zip(snapshots, shots) {
      #expect(try bench.contents("disk", snapshot: name).difference(shot) == nil)
      #expect(try bench.contents(ofOurs: "disk", snapshot: name).difference(shot) == nil)
    }
  }

  private func command(using generator: inout SeededGenerator) -> String {
    let range = range(using: &generator)
    let pattern = Int.random(in: 1...255, using: &generator)
    switch Int.random(in: 0..<10, using: &generator) {
    case 3: return "discard -q \(range.lowerBound) \(range.count)"
    case 4: return "write -q -z \(range.lowerBound) \(range.count)"
    case 5: return "write -q -z -u \(range.lowerBound) \(range.count)"
    default: return "write -q -P \(pattern) \(range.lowerBound) \(range.count)"
    }
  }

  @Test("clusters that are compressed here are read by qemu-img", arguments: settings)
  func compressed(setting: Setting) throws {
    var generator = SeededGenerator(seed: 71)
    let bench = try ImageBench()
    var model = try make(setting, in: bench, using: &generator)
    let image = try bench.open("disk")
    for cluster in stride(from: 0, to: Self.byteCount, by: setting.clusterSize * 3) {
      let range = cluster..<min(Self.byteCount, cluster + setting.clusterSize)
      var bytes = [UInt8](
        repeating: UInt8(cluster / setting.clusterSize & 0xFF), count: range.count)
      bytes.replaceSubrange(
        0..<range.count / 4, with: [UInt8].random(range.count / 4, using: &generator))
      try bytes.withUnsafeBytes { try image.writeCompressed($0, offset: UInt64(cluster)) }
      model.replaceSubrange(range, with: bytes)
    }
    #expect(try image.read(Self.byteCount, at: 0).difference(model) == nil)
    for _ in 0..<40 { try change(image, &model, using: &generator) }
    #expect(try image.read(Self.byteCount, at: 0).difference(model) == nil)
    try image.close()
    try bench.check("disk")
    #expect(try bench.contents("disk").difference(model) == nil)
  }

  @Test("an image that is made here is as good as qemu-img's", arguments: settings)
  func creation(setting: Setting) throws {
    var generator = SeededGenerator(seed: 91)
    let bench = try ImageBench()
    var model = try make(setting, in: bench, using: &generator)
    try bench.create(
      "ours",
      Qcow2Options(
        byteCount: UInt64(Self.byteCount), clusterSize: setting.clusterSize,
        version: setting.version, refcountBits: setting.refcountBits,
        hasLazyRefcounts: setting.isLazy, compression: setting.compression,
        backing: setting.base.map { .init("base", $0.format) }))
    try bench.check("ours")
    #expect(try bench.contents("ours").difference(model) == nil)
    let image = try bench.open("ours")
    for _ in 0..<50 { try change(image, &model, using: &generator) }
    try image.close()
    try bench.check("ours")
    #expect(try bench.contents("ours").difference(model) == nil)
    let error = #expect(throws: DiskError.self) {
      try bench.create("ours", Qcow2Options(byteCount: 512))
    }
    #expect(error?.kind == .alreadyExists)
  }
}
