import Brokering
import LinuxSystem

/// Templates for other sites, and from them.
extension BackupWorker {
  func export(_ pool: PoolName, _ generation: UInt64?, _ file: String) async throws {
    let archive = try ExportArchive(path: file, task: task)
    try archive.checkFree()
    task.tell("finding the template")
    let (name, size) = try await offPool {
      let (template, record) = try supervisor.template(of: pool, generation)
      // What is in the room stays until it is written, whatever becomes of the template.
      let room = try workshop.makeRoom()
      defer { try? workshop.remove(room) }
      let manifest = try TemplateManifest(
        of: template, record, stateRoot: supervisor.stateRoot, under: room.files)
      try Records.store(manifest, at: "\(room.files)/\(manifest.path)")
      task.tell("writing \(template.name) to \(file)")
      return (template.name, try archive.write(manifest, from: room.files))
    }
    task.add(.init(desktop: DesktopID(rawValue: name), addedBytes: size))
  }

  /// What is refused for what it is, or for what the site is, is refused before anything is
  /// unpacked.
  func place(
    _ manifest: TemplateManifest, _ wish: RestoreWish, from archive: ExportArchive
  ) async throws {
    guard wish.desktop == nil, wish.owner == nil else {
      throw BrokerError(
        .invalid, "\(archive.path) is a template, which is nobody's: leave out --as and --owner")
    }
    let pool = wish.pool ?? manifest.pool
    let present = await desk.machine(of: pool)
    try manifest.check(for: pool, present, stateRoot: stateRoot)
    let template = try await supervisor.reserveTemplate(of: pool)
    do {
      let bringsImage = try await offPool {
        try FreeRoom.check(manifest.roomNeeded, in: stateRoot)
        let room = try workshop.makeRoom()
        defer { try? workshop.remove(room) }
        task.tell("reading \(archive.path)")
        try archive.extract(manifest, to: room.files)
        task.tell("looking at its image")
        return try TemplateAssembly(
          manifest: manifest, root: room.files, template: template, trial: room.trial,
          stateRoot: stateRoot, runtimeRoot: supervisor.runtimeRoot,
          program: supervisor.machineProgram, task: task, failpoints: supervisor.failpoints
        ).run()
      }
      await supervisor.endReservation(of: template, isThere: true)
      task.add(.init(desktop: DesktopID(rawValue: template.name)))
      note(manifest, pool, bringsImage: bringsImage, hasPool: present != nil)
    } catch {
      await supervisor.endReservation(of: template, isThere: false)
      throw error
    }
  }

  private func note(
    _ manifest: TemplateManifest, _ pool: PoolName, bringsImage: Bool, hasPool: Bool
  ) {
    if bringsImage, let name = manifest.imageName {
      task.note("image '\(name)' is in the library now")
    }
    guard !hasPool else { return }
    task.note(
      "there is no pool '\(pool)' yet: its desktops are clones once it is made with 'carrel pool "
        + "create \(pool) \(manifest.poolOptions.joined(separator: " "))'"
        + (manifest.machine.image.arguments.isEmpty ? "" : " and the kernel's command line"))
  }
}

extension TemplateManifest {
  /// What a pool of such machines is made with.
  fileprivate var poolOptions: [String] {
    let hardware = machine.hardware
    let plain = Hardware()
    var options = [
      "--image \(imageName?.rawValue ?? machine.image.path)", "--memory \(machine.memoryMiB)M",
      "--cpus \(machine.cpus)",
    ]
    if let size = machine.diskMiB { options.append("--disk-size \(size)M") }
    if hardware.firmware != plain.firmware {
      options.append("--firmware \(hardware.firmware.rawValue)")
    }
    if hardware.video != plain.video { options.append("--video \(hardware.video)") }
    if hardware.network != plain.network { options.append("--network \(hardware.network)") }
    if hardware.networkQueues != plain.networkQueues {
      options.append("--network-queues \(hardware.networkQueues)")
    }
    if hardware.audio != plain.audio { options.append("--audio \(hardware.audio.rawValue)") }
    if hardware.usb != plain.usb { options.append("--usb \(hardware.usb ? "on" : "off")") }
    if hardware.diskBus != plain.diskBus {
      options.append("--disk-bus \(hardware.diskBus.rawValue)")
    }
    return options
  }
}

extension TemplateManifest {
  /// Refuses a template that a pool's desktops could not be cloned from.
  ///
  /// - Parameter present: what they are; `nil` without such a pool.
  func check(
    for pool: PoolName, _ present: TemplateMachine?, stateRoot: String
  ) throws(BrokerError) {
    guard processor == TemplateRecord.hostProcessor else {
      throw BrokerError(
        .conflict,
        "the template is of another processor than this host's: make one here with "
          + "'carrel template create \(pool)'")
    }
    guard let difference = present?.difference(from: machine(in: stateRoot)) else { return }
    throw BrokerError(
      .conflict,
      "pool '\(pool)' has \(difference) as the template: name another pool with --pool, or change "
        + "this one with 'carrel pool set'")
  }
}

// MARK: - In the supervisor

extension Supervisor {
  /// A generation that can be given to others. Blocks.
  ///
  /// - Parameter generation: the newest if left out.
  nonisolated func template(
    of pool: PoolName, _ generation: UInt64?
  ) throws -> (TemplateDirectory, TemplateRecord) {
    let all = try TemplateDirectory.all(stateRoot: stateRoot, runtimeRoot: runtimeRoot)
      .filter { $0.pool == pool }
    let wanted = all.last { directory in
      generation.map { directory.generation == $0 } ?? !directory.isRetired
    }
    guard let directory = wanted else {
      throw BrokerError(
        .notFound,
        generation.map { "there is no template '\(pool)@\($0)': see 'carrel template list'" }
          ?? "pool '\(pool)' has no template: make one with 'carrel template create \(pool)'")
    }
    guard let record = directory.load() else {
      throw BrokerError(
        .storage, "\(directory.record) is not what this Carrel wrote: make another generation")
    }
    guard TemplateRecord.stamp(of: record.machine.image.path) == record.imageStamp else {
      throw BrokerError(
        .conflict,
        "the image of template '\(directory.name)' was changed since: make another generation with "
          + "'carrel template refresh \(pool)'")
    }
    return (directory, record)
  }

  nonisolated var runtimeRoot: String { settings.runtimeDirectory }

  /// The pool's next generation, which nobody else makes until `endReservation`.
  func reserveTemplate(of pool: PoolName) async throws -> TemplateDirectory {
    guard templateMakings[pool] == nil, templateImports.insert(pool).inserted else {
      throw BrokerError(
        .conflict,
        "a template of pool '\(pool)' is being made or imported: try again when it is done")
    }
    do {
      let generation = try await nextGeneration(of: pool)
      return templateDirectory(pool, generation)
    } catch {
      templateImports.remove(pool)
      throw error
    }
  }

  func endReservation(of template: TemplateDirectory, isThere: Bool) async {
    templateImports.remove(template.pool)
    guard isThere else { return }
    failedTemplates[template.pool] = nil
    logger.info("template imported", metadata: ["template": "\(template.name)"])
    await sweepTemplates()
  }
}
