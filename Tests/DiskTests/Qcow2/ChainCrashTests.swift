import Disk
import LinuxSystem
import TestSupport
import Testing

/// Images in memory, and one log of what is done to all of them.
private final class RecordedChain {
  struct Entry: Sendable {
    let file: String
    let operation: RecordingStorage.Operation
  }

  private(set) var storages: [String: RecordingStorage] = [:]
  private let entries = Guarded<[Entry]>([])

  /// - Parameter files: what is durable in each.
  init(_ files: [String: [UInt8]]) {
    let entries = self.entries
    for (name, bytes) in files {
      storages[name] = RecordingStorage(bytes) { operation in
        entries.withLock { $0.append(Entry(file: name, operation: operation)) }
      }
    }
  }

  var log: [Entry] { entries.withLock { $0 } }
  var contents: [String: [UInt8]] { storages.mapValues(\.contents) }

  func storage(_ name: String) throws -> RecordingStorage { try #require(storages[name]) }

  func header(_ name: String) throws -> Qcow2Header {
    let bytes = try storage(name).contents
    return try Qcow2Header(parsing: Array(bytes.prefix(65536)))
  }

  /// An image as its header says it is based on others, all of which are only read.
  func open(_ name: String, isReadOnly: Bool = true) throws -> Qcow2Image {
    let backing = try header(name).backingName.map { bytes in
      try layer(String(decoding: bytes, as: UTF8.self))
    }
    return try Qcow2Image(
      path: name, storage: try storage(name), isReadOnly: isReadOnly, backing: backing)
  }

  func openAlone(_ name: String, isReadOnly: Bool) throws -> Qcow2Image {
    try Qcow2Image(path: name, storage: try storage(name), isReadOnly: isReadOnly)
  }

  func layer(_ name: String) throws -> any ImageLayer {
    let storage = try storage(name)
    let isRaw = storage.contents.prefix(4) != [0x51, 0x46, 0x49, 0xFB]
    return isRaw ? StoredLayer(name, storage) : try open(name)
  }
}

/// A raw image in memory.
private final class StoredLayer: ImageLayer {
  let path: String
  let byteCount: UInt64
  private let storage: RecordingStorage

  init(_ path: String, _ storage: RecordingStorage) {
    (self.path, self.storage) = (path, storage)
    byteCount = storage.size()
  }

  func unlock() {}

  func read(into buffers: [UnsafeMutableRawBufferPointer], offset: UInt64) {
    _ = storage.read(into: buffers, offset: offset)
  }
}

@Suite("Whole operations on chains, and power cuts")
struct ChainCrashTests {
  struct Setting: CustomTestStringConvertible {
    var clusterSize = 512
    var baseClusterSize = 512
    var version: UInt32 = 3
    var isLazy = false
    var isBaseRaw = false

    var testDescription: String {
      "clusters of \(clusterSize), version \(version), over "
        + (isBaseRaw ? "raw" : "clusters of \(baseClusterSize)") + (isLazy ? ", lazy" : "")
    }
  }

  enum Operation: String, CaseIterable {
    /// `onOther` copies what differs, `below` what lies between.
    case flatten, onOther, below, commit, commitKeeping
  }

  static let settings = [
    Setting(), Setting(clusterSize: 1024, baseClusterSize: 4096, version: 2),
    Setting(clusterSize: 4096, baseClusterSize: 4096),
    Setting(clusterSize: 4096, baseClusterSize: 512, isLazy: true),
    Setting(clusterSize: 4096, version: 2, isBaseRaw: true),
    Setting(clusterSize: 512, isBaseRaw: true),
  ]

  /// The base is the smallest, so that it grows over what it is itself based on; none ends
  /// with a cluster.
  private static let (topSectors, baseSectors, otherSectors) = (323, 205, 261)

  /// The bottom, the base over it, the top over that, and another raw image.
  private func make(
    _ setting: Setting, using generator: inout SeededGenerator
  ) throws -> (files: [String: [UInt8]], model: [UInt8]) {
    var files = [
      "bottom": [UInt8].random(Self.otherSectors * 512, using: &generator),
      "other": [UInt8].random(Self.otherSectors * 512, using: &generator),
      "base": [UInt8].random(Self.baseSectors * 512, using: &generator), "top": [],
    ]
    if !setting.isBaseRaw { files["base"] = [] }
    let chain = RecordedChain(files)
    func fill(_ name: String, sectors: Int, over base: String, clusterSize: Int) throws {
      var options = Qcow2Options(
        byteCount: UInt64(sectors * 512), clusterSize: clusterSize, version: setting.version,
        hasLazyRefcounts: setting.isLazy)
      let isRaw = base == "bottom" || setting.isBaseRaw
      options.backing = .init(base, isRaw ? .raw : .qcow2)
      try Qcow2Image.format(try chain.storage(name), options, path: name)
      let image = try chain.open(name, isReadOnly: false)
      for _ in 0..<12 {
        let first = Int.random(in: 0..<sectors, using: &generator)
        let count = min(sectors - first, Int.random(in: 1...24, using: &generator))
        if Int.random(in: 0..<3, using: &generator) == 0 {
          try image.writeZeroes(
            offset: UInt64(first * 512), count: UInt64(count * 512), mayDiscard: true)
        } else {
          try image.write(.random(count * 512, using: &generator), at: UInt64(first * 512))
        }
      }
      try image.close()
    }
    if !setting.isBaseRaw {
      try fill(
        "base", sectors: Self.baseSectors, over: "bottom", clusterSize: setting.baseClusterSize)
    }
    try fill("top", sectors: Self.topSectors, over: "base", clusterSize: setting.clusterSize)
    let top = try chain.open("top")
    return (chain.contents, try top.read(Self.topSectors * 512, at: 0))
  }

  /// Does it, as often as it takes.
  private func carryOut(_ operation: Operation, _ chain: RecordedChain) throws {
    switch operation {
    case .flatten, .onOther, .below:
      let top = try chain.open("top", isReadOnly: false)
      let name: String? =
        switch operation {
        case .flatten: nil
        case .onOther: "other"
        default: "bottom"
        }
      // One that it is based on already is that, as by path.
      let below = (top.backing as? Qcow2Image)?.backing
      let layer = try name.map { name in
        try [top.backing, below].compactMap { $0 }.first { $0.path == name } ?? chain.layer(name)
      }
      try ChainOperation.rebase(
        top, onto: layer, named: name.map { .init($0, .raw) }, flushInterval: 20_000)
      try top.close()
    case .commit, .commitKeeping:
      let top = try chain.openAlone("top", isReadOnly: operation == .commitKeeping)
      let storage = try chain.storage("base")
      let target =
        storage.contents.prefix(4) == [0x51, 0x46, 0x49, 0xFB]
        ? try CommitTarget.growing(chain.open("base", isReadOnly: false), to: top.byteCount) {
          () throws(DiskError) in
          do { return try chain.open("base", isReadOnly: false) } catch {
            throw DiskError(kind: .inputOutput, context: "base", cause: error)
          }
        } : try CommitTarget.growing("base", storage, to: top.byteCount)
      try ChainOperation.commit(top, to: target, empties: operation == .commit)
      try top.close()
    }
  }

  @Test(
    "wherever power goes, every image is sound, the chain reads as before, and it can be done again",
    arguments: settings, Operation.allCases)
  func cuts(setting: Setting, operation: Operation) throws {
    var generator = SeededGenerator(seed: 29)
    let (files, model) = try make(setting, using: &generator)
    let chain = RecordedChain(files)
    try carryOut(operation, chain)
    let log = chain.log
    #expect(log.count >= 10)
    try checkResult(of: operation, chain, model)

    var cuts = files.mapValues { PowerCut($0) }
    var isAfterBarrier = true
    for position in 0...log.count {
      for survival in isAfterBarrier ? [PowerCut.Survival.nothing] : [.everything, .some] {
        let left = RecordedChain(
          cuts.mapValues { $0.contents(survival, using: &generator) })
        let place = "\(survival) after \(position) of \(log.count)"
        guard try survives(left, model, place) else { return }
        guard position % 16 == 0 else { continue }
        try carryOut(operation, left)
        guard try survives(left, model, "again, \(place)") else { return }
        try checkResult(of: operation, left, model)
      }
      guard position < log.count else { break }
      cuts[log[position].file]?.advance(log[position].operation)
      if case .barrier = log[position].operation {
        isAfterBarrier = true
      } else {
        isAfterBarrier = false
      }
    }
  }

  private func survives(_ chain: RecordedChain, _ model: [UInt8], _ place: String) throws -> Bool {
    let top = try chain.open("top", isReadOnly: false)
    let difference = try top.read(model.count, at: 0).difference(model)
    let others = chain.storages.keys.filter { name in
      name != "top" && chain.contents[name]?.prefix(4) == [0x51, 0x46, 0x49, 0xFB]
    }
    let checks = try others.map { try chain.open($0, isReadOnly: false).check() } + [top.check()]
    #expect(difference == nil, "\(place): byte \(difference ?? 0)")
    for check in checks { #expect(check.errors == 0, "\(place): \(check.problems)") }
    return difference == nil && checks.allSatisfy { $0.errors == 0 }
  }

  private func checkResult(
    of operation: Operation, _ chain: RecordedChain, _ model: [UInt8]
  ) throws {
    let name = try chain.header("top").backingName.map { String(decoding: $0, as: UTF8.self) }
    let top = try chain.open("top")
    #expect(try top.read(model.count, at: 0).difference(model) == nil)
    switch operation {
    case .flatten: #expect(name == nil)
    case .onOther: #expect(name == "other")
    case .below: #expect(name == "bottom")
    case .commit, .commitKeeping:
      #expect(name == "base")
      #expect((try top.check().allocatedClusters == 0) == (operation == .commit))
      let base = try chain.layer("base")
      var bytes = [UInt8](repeating: 0xFF, count: model.count)
      try #require(base.byteCount == UInt64(model.count))
      try bytes.withUnsafeMutableBytes { try base.read(into: [$0], offset: 0) }
      #expect(bytes.difference(model) == nil)
    }
  }
}

/// The same with a file system that has no room for it.
@Suite("Whole operations on chains, and full disks", .needs("qemu-img", "qemu-io"), .needsRoot)
struct ChainRoomTests {
  @Test(
    "what there is no room for leaves the chain as it was, and goes on when there is some",
    arguments: ["flatten", "rebase", "commit to qcow2", "commit to raw"])
  func full(operation: String) throws {
    let bench = try ImageBench()
    try bench.run("mkdir small && mount -t tmpfs -o size=3m tmpfs small")
    defer { _ = try? bench.run("umount -l small") }
    let policy = BackingPolicy(directories: [bench.directory.path])
    let isCommit = operation.hasPrefix("commit")
    try bench.run("head -c 8M /dev/urandom > bottom && truncate -s 8M other")
    let top = isCommit ? "top" : "small/top"
    if isCommit {
      try bench.run(
        operation == "commit to raw"
          ? "truncate -s 6M small/base"
          : "qemu-img create -q -f qcow2 -b ../bottom -F raw small/base 6M")
      let format = operation == "commit to raw" ? "raw" : "qcow2"
      try bench.run(
        "qemu-img create -q -f qcow2 -b small/base -F \(format) top 8M"
          + " && qemu-io -c 'write -q -P 7 512k 7m' top")
    } else {
      try bench.run(
        "qemu-img create -q -f qcow2 -b ../bottom -F raw small/top 8M"
          + " && qemu-io -c 'write -q -P 7 1m 1m' small/top")
    }
    try bench.run("qemu-img convert -f qcow2 -O raw \(top) expected")
    func carryOut() throws(DiskError) {
      let path = bench.path(top)
      switch operation {
      case "flatten": try ChainOperation.flatten(path, policy)
      case "rebase":
        try ChainOperation.rebase(path, onto: .init(bench.path("other"), .raw), policy)
      default: try ChainOperation.commit(path, policy)
      }
    }
    func compare() throws {
      try bench.run("qemu-img compare -f qcow2 -F raw \(top) expected")
      for image in [top] + (operation == "commit to qcow2" ? ["small/base"] : []) {
        // Lost room is no error.
        let (status, output) = try bench.directory.run("qemu-img check -f qcow2 \(image)")
        #expect(status == 0 || status == 3, "\(output)")
      }
    }
    for _ in 0..<2 {
      let error = #expect(throws: DiskError.self) { try carryOut() }
      #expect(error?.kind == .noSpace)
      try compare()
    }
    try bench.run("mount -o remount,size=64m small")
    try carryOut()
    try compare()
    let info = try bench.run("qemu-img info \(top)")
    #expect(info.contains("backing file:") == (operation != "flatten"))
  }
}
