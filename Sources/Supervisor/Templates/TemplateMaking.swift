import Brokering
import Glibc
import LinuxSystem

/// One generation of a template on its way: a desktop of the pool that nobody is given is
/// started, waited for and taken.
final class TemplateMaking: Sendable {
  private struct Progress {
    var step = "starting a desktop"
    var isUnwanted = false
  }

  let plan: TemplatePlan
  let directory: TemplateDirectory
  let desktop: DesktopDirectory
  let begun: Timestamp
  private let progress = Guarded(Progress())

  /// The number of the desktop; those that users are given begin with 1.
  static let number: UInt64 = 0
  private static let limit = Duration.seconds(600)

  init(
    _ plan: TemplatePlan, _ directory: TemplateDirectory, _ desktop: DesktopDirectory,
    begun: Timestamp
  ) {
    self.plan = plan
    self.directory = directory
    self.desktop = desktop
    self.begun = begun
  }

  var described: PoolTemplate {
    PoolTemplate(
      pool: plan.pool, generation: directory.generation,
      state: .making(step: progress.withLock { $0.step }), machine: plan.machine,
      readiness: plan.readiness, created: begun)
  }

  var request: LaunchRequest {
    LaunchRequest(
      desktop: desktop.desktop, generation: directory.generation, image: plan.machine.image,
      memoryMiB: plan.machine.memoryMiB, cpus: plan.machine.cpus, diskMiB: plan.machine.diskMiB,
      hardware: plan.machine.hardware, disk: .fresh, user: nil, keyboardLayout: "en-us")
  }

  /// Ends it soon.
  func cancel() { progress.withLock { $0.isUnwanted = true } }

  var isUnwanted: Bool { progress.withLock { $0.isUnwanted } }

  /// Waits for the desktop, whose VMM is `process`. Blocks.
  ///
  /// - Returns: what was seen.
  func awaitReadiness(_ process: ProcessHandle) throws -> String {
    try GuestReadiness(
      directory: desktop, process: process, cpus: plan.machine.cpus, wanted: plan.readiness,
      isUnwanted: { self.isUnwanted },
      progress: { step in self.progress.withLock { $0.step = step } }
    ).wait()
  }

  /// Saves the desktop, which runs. Blocks.
  ///
  /// - Returns: what was saved, but for the disk, which has a new image over it.
  func take(sign: String, identifier: String) throws -> TemplateRecord {
    progress.withLock { $0.step = "taking it" }
    try directory.create()
    let disks = try DiskLayers(in: desktop.state)
    let memory = "\(identifier).snapshot"
    let save = ControlClient.SaveRequest(
      path: "\(directory.draft)/\(memory)", identifier: identifier, base: nil,
      overlay: disks.top.map { _ in
        (plan.machine.hardware.diskBus.firstDisk, "\(desktop.state)/\(disks.nextName)")
      }, holds: false, hasSession: desktop.hasSession)
    try ControlClient(path: desktop.control).save(
      .save(save), identifier: identifier, within: Self.limit)
    return TemplateRecord(
      machine: plan.machine, readiness: plan.readiness, created: begun, sign: sign,
      imageStamp: TemplateRecord.stamp(of: plan.machine.image.path),
      processor: TemplateRecord.hostProcessor, memory: memory, disk: disks.top?.name,
      hasVariables: Files.exists(desktop.variables))
  }

  /// Takes over what the desktop, whose VMM has ended, has on disk. Blocks. Afterwards the
  /// template exists.
  func finish(_ record: TemplateRecord) throws {
    if let disk = record.disk {
      guard rename("\(desktop.state)/\(disk)", "\(directory.draft)/\(disk)") == 0 else {
        throw SystemError(code: errno, "take over the disk of \(desktop.desktop)")
      }
    }
    if record.hasVariables {
      try Files.replace(
        "\(directory.draft)/variables.fd",
        with: try Files.read(desktop.variables, limit: 64 << 20))
    }
    try Records.store(record, at: "\(directory.draft)/template.json")
    try directory.finish()
  }
}
