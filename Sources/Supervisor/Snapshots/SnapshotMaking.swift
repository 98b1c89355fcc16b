import Brokering
import Glibc
import LinuxSystem
import QMP

/// One snapshot that is being taken of a desktop.
///
/// Of a running one its VMM saves memory and devices, and at the same instant goes over to
/// a new image over the disk's. Of one that is off, a new image is made.
struct SnapshotMaking: Sendable {
  let request: SnapshotRequest
  let shelf: SnapshotShelf
  let isRunning: Bool
  let begun: Timestamp
  /// Of `carrel-vmm`, which makes images.
  let program: String
  let limit: Duration
  /// Names the file with the memory.
  let identifier: String
  let quiescing: Quiescing
  let failpoints: Failpoints
  /// Of a desktop that is suspended, what it was saved to is taken, too.
  var isBackup = false
  /// Whether memory needs no other.
  var isWhole = false

  private var directory: DesktopDirectory { shelf.directory }

  var described: DesktopSnapshot {
    DesktopSnapshot(
      name: request.name, state: .making(percent: isRunning ? progress : nil),
      parent: shelf.current(), created: begun, shape: request.shape)
  }

  /// Asks the VMM. Blocks.
  private var progress: Int? {
    let client = ControlClient(path: directory.control)
    guard let state = try? client.perform(.saveStatus, within: .seconds(2)),
      let done = state["transferred"]?.whole, let total = state["total"]?.whole, total > 0
    else { return nil }
    return min(100, done * 100 / total)
  }

  /// Takes it. Blocks. Afterwards it exists, or nothing of it does.
  @discardableResult
  func run() throws -> SnapshotRecord {
    do {
      let record = isRunning ? try takeRunning() : try takeResting()
      try shelf.add(record)
      // Of what the VMM saved before, its next memory needs nothing else than this one does.
      try? shelf.sweep()
      return record
    } catch {
      // The error that is told is the first one; what is left is swept later.
      try? shelf.sweep()
      throw error
    }
  }

  private func makeRecord(_ layer: DiskLayers.Layer?) throws(SystemError) -> SnapshotRecord {
    var record = SnapshotRecord(
      name: request.name, created: begun, parent: shelf.current(), shape: request.shape,
      layer: layer?.number)
    if isBackup { record.isBackup = true }
    if Files.exists(directory.variables) {
      try Files.replace(
        shelf.variables(request.name), with: try Files.read(directory.variables, limit: 64 << 20))
      record.hasVariables = true
    }
    return record
  }

  /// The disk of a desktop whose memory is kept. One that is gone is not passed over: what was
  /// kept would lack it.
  private func layersBesideMemory() throws -> DiskLayers {
    let disks = try DiskLayers(in: directory.state)
    guard disks.top != nil || request.shape.kind != .disk else {
      throw BrokerError(
        .storage,
        "the disk of desktop '\(directory.desktop)' is gone from \(directory.state): put it back, "
          + "or give the desktop up with 'carrel desktop delete \(directory.desktop)' and restore "
          + "a backup of it")
    }
    return disks
  }

  private func takeResting() throws -> SnapshotRecord {
    let hasMemory = isBackup && directory.isSuspended
    let disks = try hasMemory ? layersBesideMemory() : DiskLayers(in: directory.state)
    guard disks.top != nil || hasMemory else {
      throw BrokerError(
        .conflict,
        "desktop '\(directory.desktop)' is off and has no disk: start it, to take its memory")
    }
    if hasMemory, link(directory.suspended, shelf.memory(identifier)) != 0 {
      throw SystemError(code: errno, "link \(directory.suspended)")
    }
    if let top = disks.top {
      try directory.makeOverlay(named: disks.nextName, over: top, program: program)
    }
    var record = try makeRecord(disks.top)
    if hasMemory {
      record.memory = identifier
      record.bases = shelf.suspendedMemory()?.bases ?? []
    }
    return record
  }

  private func takeRunning() throws -> SnapshotRecord {
    if !isBackup { shorten() }
    let disks = try layersBesideMemory()
    let base = isWhole ? nil : shelf.nextBase(forBackup: isBackup)
    let quiesces = request.quiesces && disks.top != nil && quiescing.isPossible
    let isQuiesced = try save(
      ControlClient.SaveRequest(
        path: shelf.memory(identifier), identifier: identifier, base: base?.memory,
        overlay: disks.top.map { _ in
          (
            device: request.shape.hardware.diskBus.firstDisk,
            file: "\(directory.state)/\(disks.nextName)"
          )
        }, holds: quiesces, hasSession: directory.hasSession))
    let client = ControlClient(path: directory.control)
    let state = try client.perform(.saveStatus, within: .seconds(5))
    failpoints.hit("supervisor.snapshot.saved")
    var saved = SavedMemory(memory: identifier)
    if state["differential"]?.truth == true, let base { saved.bases = base.all }
    // The next backup is whole where it would not build upon this one.
    saved.isKept = isBackup && shelf.isBase(saved, forBackup: true)
    try shelf.noteSaved(saved)
    failpoints.hit("supervisor.snapshot.noted")
    var record = try makeRecord(disks.top)
    record.memory = identifier
    record.bases = saved.bases
    record.isQuiesced = isQuiesced
    record.pauseMicroseconds = state["downtime"]?.whole
    return record
  }
}

extension SnapshotMaking {
  /// Returns when the file is whole.
  ///
  /// - Returns: whether file systems were frozen for it.
  private func save(_ save: ControlClient.SaveRequest) throws -> Bool {
    defer { quiescing.thaw() }
    let client = ControlClient(path: directory.control)
    var isFrozen = false
    try client.save(.save(save), identifier: identifier, within: limit) { data in
      if data["status"]?.text == "holding" {
        isFrozen = try quiescing.freeze()
        try client.perform(.continueSave, within: .seconds(5))
      } else if data["taken"]?.truth == true {
        quiescing.thaw()
      }
    }
    return isFrozen
  }
}

extension Hardware.DiskBus {
  /// As `carrel-vmm` calls the first disk.
  var firstDisk: String {
    switch self {
    case .ide: "ide0-hd0"
    case .virtio: "virtio0"
    }
  }
}

extension DesktopDirectory {
  /// Makes a new image over one of the desktop's. Blocks.
  func makeOverlay(
    named name: String, over layer: DiskLayers.Layer, program: String
  ) throws {
    let (isSuccess, errors) = try ImageTool.run(
      program,
      [
        "disk", "create", "--over", "\(layer.format.rawValue):\(layer.name)", "--json",
        "\(state)/\(name)",
      ] + bases.flatMap { ["--bases", $0] })
    guard isSuccess else {
      throw BrokerError(
        .storage, "the disk of desktop '\(desktop)' cannot be kept as it is: \(errors)")
    }
  }
}
