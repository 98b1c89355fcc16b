import Brokering
import Foundation
import LinuxSystem
import Supervisor
import TestSupport
import Testing

@Suite("Templates as files", .needsKVM, .needs("tar", "zstd", "qemu-img"), .serialized)
struct TemplateArchiveTests {
  private let pool = PoolName(rawValue: "office")

  /// Makes a template of the site's pool.
  private func make(_ site: BackupSite) async throws -> PoolTemplate {
    try await site.supervisor.makeTemplate(
      TemplatePlan(
        pool: pool, machine: TemplateMachine(of: site.desk.pool),
        readiness: try TemplateReadiness(sign: .screen, settleSeconds: 1, limitSeconds: 300)))
    while true {
      let last = try #require(try await site.supervisor.templates().last)
      guard case .making = last.state else { return last }
      try await Task.sleep(for: .milliseconds(20))
    }
  }

  /// A site whose pool starts a kernel and has a template, and the file that it was written to.
  private func exported() async throws -> (BackupSite, file: String) {
    let site = try BackupSite()
    try Files.replace(site.desk.pool.image.path, with: SmallGuest.sleeping)
    #expect(try await make(site).state == .ready)
    let file = site.running.directory.path("office.carrel")
    try await site.succeed(.exportTemplate(pool, generation: nil, file: file))
    return (site, file)
  }

  /// Another site on this host, whose pool starts the same kernel.
  private func other(_ site: BackupSite, memoryMiB: Int = 16) throws -> BackupSite {
    try BackupSite(kernel: site.desk.pool.image.path, memoryMiB: memoryMiB)
  }

  private func isClone(_ desktop: String, _ site: BackupSite) throws -> Bool {
    let stat = String(
      decoding: try Files.read("/proc/\(site.running.process(of: desktop).identifier)/stat"),
      as: UTF8.self)
    let fields = try #require(stat.split(separator: ")").last).split(separator: " ")
    return Int32(fields[1]) != getpid()
  }

  private func names(_ site: BackupSite) throws -> [String] {
    try FileManager.default.subpathsOfDirectory(atPath: site.state).filter { $0 != "backups" }
      .sorted()
  }

  @Test("are templates on another site: its desktops are clones")
  func roundTrip() async throws {
    let (site, file) = try await exported()
    let attributes = try FileManager.default.attributesOfItem(atPath: file)
    #expect(attributes[.posixPermissions] as? Int == 0o600)
    #expect(site.remains().isEmpty && !Files.exists(file + ".part"))
    #expect(
      try await site.problem(.exportTemplate(pool, generation: 1, file: file))
        .contains("there already"))
    let missing = site.running.directory.path("missing.carrel")
    #expect(
      try await site.problem(.exportTemplate(pool, generation: 7, file: missing))
        .contains("no template 'office@7'"))
    #expect(!Files.exists(missing))

    let other = try other(site)
    let job = try await other.succeed(.importFile(file, RestoreWish()))
    #expect(job.results.map(\.desktop.rawValue) == ["office@1"] && job.notes.isEmpty)
    let template = try #require(try await other.supervisor.templates().first)
    #expect(template.state == .ready && template.sign == "screen and processors rested")
    try await other.start(1)
    #expect(try isClone("office-1", other))
    // Once more, beside the first, which a clone needs.
    try await other.succeed(.importFile(file, RestoreWish()))
    #expect(try await other.supervisor.templates().map(\.generation) == [1, 2])
    try await other.supervisor.discard(other.office)
    #expect(try await other.supervisor.templates().map(\.generation) == [2])
    #expect(other.remains().isEmpty && other.desk.results.isEmpty)
    let nobodys = try await other.problem(
      .importFile(file, RestoreWish(owner: UserName(rawValue: "alice"))))
    #expect(nobodys.contains("--owner"), "\(nobodys)")
    await other.supervisor.endTemplates()
  }

  @Test("bring their image to the library, and are based on it there", .needs("passt"))
  func image() async throws {
    let image = [UInt8](repeating: 0, count: 1 << 20)
    let hardware = Hardware(
      network: .user(.off), networkQueues: 2, audio: .none, diskBus: .virtio)
    let site = try BackupSite(image: image, hardware: hardware)
    #expect(try await make(site).state == .ready)
    let file = site.running.directory.path("office.carrel")
    try await site.succeed(.exportTemplate(pool, generation: 1, file: file))

    // No pool is there that could differ.
    let fresh = try BackupSite(hasPool: false)
    let job = try await fresh.succeed(.importFile(file, RestoreWish()))
    try #require(job.notes.count == 2)
    #expect(job.notes[0].contains("image 'debian' is in the library"))
    #expect(
      job.notes[1].contains("'carrel pool create office --image debian --memory 16M --cpus 1 "))
    #expect(
      job.notes[1].contains(
        "--network user --network-queues 2 --audio none --disk-bus virtio'"), "\(job.notes)")
    let path = fresh.state + "/images/debian/image.raw"
    #expect(try Files.read(path) == image)
    let template = try #require(try await fresh.supervisor.templates().first)
    #expect(template.state == .ready && template.machine?.image.path == path)
    try await fresh.supervisor.start(
      LaunchRequest(
        desktop: fresh.office, generation: 1, image: Image(kind: .disk, path: path), memoryMiB: 16,
        cpus: 1, hardware: hardware, disk: .fresh, user: nil, keyboardLayout: "en-us"))
    #expect(try isClone("office-1", fresh))
    let (_, chain) = try fresh.running.directory.run(
      "qemu-img info -U --backing-chain \(fresh.state)/desktops/office-1/disk-1.qcow2")
    #expect(chain.contains("\(fresh.state)/templates/office@1/disk-1.qcow2"), "\(chain)")
    #expect(chain.contains(path) && !chain.contains("/trial/"), "\(chain)")
    try await fresh.supervisor.discard(fresh.office)
    await fresh.supervisor.endTemplates()

    // The library has it already.
    let same = try BackupSite(image: image, hardware: hardware)
    let inode =
      try FileManager.default.attributesOfItem(
        atPath: same.state + "/images/debian/image.raw")[.systemFileNumber] as? Int
    #expect(try await same.succeed(.importFile(file, RestoreWish())).notes.isEmpty)
    #expect(
      try FileManager.default.attributesOfItem(atPath: same.state + "/images/debian/image.raw")[
        .systemFileNumber] as? Int == inode)
    // Or another one under its name.
    let different = try BackupSite(image: [UInt8](repeating: 1, count: 1 << 20), hardware: hardware)
    let before = try names(different)
    let problem = try await different.problem(.importFile(file, RestoreWish()))
    #expect(problem.contains("the library has another image 'debian'"), "\(problem)")
    #expect(try names(different) == before)
  }

  @Test("bring a kernel of the library along as they do other images")
  func kernel() async throws {
    let directory = try TemporaryDirectory()
    for part in ["images", "images/demo"] { try Files.makeDirectory(directory.path(part)) }
    let path = try directory.write(SmallGuest.sleeping, to: "images/demo/image.elf")
    _ = try directory.write(Array("{}".utf8), to: "images/demo/image.json")
    let site = try BackupSite(kernel: path, state: directory.path)
    #expect(try await make(site).state == .ready)
    let file = site.running.directory.path("office.carrel")
    try await site.succeed(.exportTemplate(pool, generation: 1, file: file))

    let fresh = try BackupSite(hasPool: false)
    let job = try await fresh.succeed(.importFile(file, RestoreWish()))
    #expect(job.notes.first?.contains("image 'demo' is in the library") == true, "\(job.notes)")
    let image = fresh.state + "/images/demo/image.elf"
    #expect(try Files.read(image) == SmallGuest.sleeping)
    #expect(try await fresh.supervisor.templates().first?.machine?.image.path == image)
    await fresh.supervisor.endTemplates()
    await site.supervisor.endTemplates()
  }

  @Test("of which a carreld that dies leaves nothing half imported")
  func killed() async throws {
    let site = try BackupSite(image: [UInt8](repeating: 0, count: 1 << 20))
    #expect(try await make(site).state == .ready)
    let file = site.running.directory.path("office.carrel")
    try await site.succeed(.exportTemplate(pool, generation: nil, file: file))
    for (point, hasImage, isThere) in [
      ("prepared", false, false), ("image", true, false), ("placed", true, true),
    ] {
      // A thread that never goes on is as good as a dead process.
      let (reached, isOver) = (Guarded(false), Guarded(false))
      let first = try BackupSite(
        hasPool: false,
        failpoints: Failpoints { name in
          guard name == "template.import." + point else { return }
          reached.change { $0 = true }
          isOver.wait(until: { $0 }) { _ in }
        })
      let job = try await first.store.begin(.importFile(file, RestoreWish()), for: first.desk)
      try await offPool { reached.wait(until: { $0 }) { _ in } }

      let second = try BackupSite(after: first, hasPool: false)
      _ = try await second.supervisor.survey()
      #expect(second.remains().isEmpty)
      #expect(Files.exists(second.state + "/images/debian/image.json") == hasImage, "\(point)")
      let templates = try await second.supervisor.templates()
      #expect(templates.map(\.state) == (isThere ? [.ready] : []), "\(point)")
      let names =
        (try? FileManager.default.contentsOfDirectory(atPath: second.state + "/templates")) ?? []
      #expect(names == (isThere ? ["office@1"] : []), "\(point)")
      try await second.succeed(.importFile(file, RestoreWish()))
      let newest = try #require(try await second.supervisor.templates().last)
      #expect(newest.state == .ready && newest.generation == (isThere ? 2 : 1), "\(point)")
      isOver.change { $0 = true }
      _ = try await first.end(of: job)
    }
  }

  @Test("are refused where desktops could not be cloned from them, before anything is unpacked")
  func misfits() async throws {
    let (site, file) = try await exported()
    let larger = try other(site, memoryMiB: 24)
    var before = try names(larger)
    let memory = try await larger.problem(.importFile(file, RestoreWish()))
    #expect(memory.contains("pool 'office' has 24 MiB of memory, not 16"), "\(memory)")
    #expect(try names(larger) == before)
    let kernel = try await BackupSite().problem(.importFile(file, RestoreWish()))
    #expect(kernel.contains("has image '"), "\(kernel)")

    let elsewhere = try repacked(site, file, "sed -i 's|model name|model-name|' $M")
    before = try names(site)
    let job = try await site.perform(.importFile(elsewhere, RestoreWish()))
    guard case .failed(let processor) = job.state else {
      Issue.record("another processor's is taken")
      return
    }
    #expect(processor.contains("another processor"), "\(processor)")
    #expect(job.problemKind == .conflict)
    #expect(try names(site) == before)

    // The kernel is another since.
    let late = try other(site)
    try Files.replace(site.desk.pool.image.path, with: SmallGuest.sleeping + [0])
    let changed = try await late.problem(.importFile(file, RestoreWish()))
    #expect(changed.contains("is not the image"), "\(changed)")
    let stale = try await site.problem(
      .exportTemplate(pool, generation: nil, file: file + ".new"))
    #expect(stale.contains("was changed since"), "\(stale)")
    try Files.remove(site.desk.pool.image.path)
    let gone = try await late.problem(.importFile(file, RestoreWish()))
    #expect(gone.contains("is not here"), "\(gone)")
    #expect(late.remains().isEmpty && !Files.exists(late.state + "/images"))
  }

  /// The archive after somebody did something to its files; `M` is what it says about itself,
  /// `S` the memory and `D` their directory.
  private func repacked(
    _ site: BackupSite, _ file: String, _ attack: String
  ) throws -> String {
    let (status, output) = try site.running.directory.run(
      """
      rm -rf evil evil.carrel; mkdir -p evil/in && cd evil/in && tar -xf \(file) || exit 1
      D=templates/office@1; M=$D/export.json; S=$(ls $D/*.snapshot); FIRST=$M
      F="$S $D/image"
      \(attack)
      tar --zstd --sparse -P --no-recursion -cf ../../evil.carrel $FIRST $F
      """)
    #expect(status == 0, "\(output)")
    return site.running.directory.path("evil.carrel")
  }

  private static let attacks: [(attack: String, reason: String)] = [
    ("ln -s /etc/passwd $D/x; F=\"$F $D/x\"", "is none of its files"),
    ("rm $D/image; ln -s /etc/passwd $D/image", "is none of its files"),
    ("ln $S $D/x; F=\"$F $D/x\"", "is none of its files"),
    ("echo >> $D/image", "other files are in it"),
    ("echo > $D/x; F=\"$F $D/x\"", "other files are in it"),
    ("echo > ../away; F=\"$F ../away\"", "is none of its files"),
    ("F=\"$F $PWD/$S\"", "is none of its files"),
    ("F=\"$F $D\"", "is none of its files"),
    ("F=\"$F $M\"", "is none of its files"),
    ("F=\"$F $M\"; FIRST=", "does not begin with"),
    ("sed -i 's|\"version\":1|\"version\":2|' $M; grep -q version.:2 $M", "of format 2"),
    ("echo '{\"version\":3}' > $M", "of format 3"),
    ("echo '{' > $M", "cannot be read"),
    ("truncate -s 2M $M", "does not begin with"),
    ("sed -i 's|\"generation\":1|\"generation\":2|' $M", "what it says about itself"),
    ("sed -i 's|\"pool\":\"office\"|\"pool\":\"../office\"|' $M", "its pool"),
    ("sed -i 's|office@1[\\\\]*/image|office@1/../../../etc/passwd|g' $M", "its image"),
    ("sed -i 's|\"memoryMiB\":16|\"memoryMiB\":-1|' $M", "its machine"),
    ("sed -i 's|screen and|\\\\u001b[2Jscreen|' $M; grep -q u001b $M", "its text"),
    (
      "O=$(stat -c %s $S); head -c 64M /dev/zero >> $S;"
        + " sed -i \"s|\\\"size\\\":$O|\\\"size\\\":$(stat -c %s $S)|\" $M",
      "more is in it than it says"
    ),
    // Those that only a machine can tell.
    ("printf X | dd of=$S bs=1 seek=20 conv=notrunc 2>/dev/null", "can be cloned"),
    ("N=$(stat -c %s $S); truncate -s 0 $S; truncate -s $N $S", "can be cloned"),
  ]

  @Test("are refused when they are not what they say")
  func hostile() async throws {
    let (site, file) = try await exported()
    let before = try names(site)
    for (attack, reason) in Self.attacks {
      let evil = try repacked(site, file, attack)
      let problem = try await site.problem(.importFile(evil, RestoreWish()))
      #expect(problem.contains(reason), "\(attack): \(problem)")
      #expect(site.remains().isEmpty, "\(attack)")
      #expect(try names(site) == before, "\(attack)")
    }
    #expect(try await site.supervisor.templates().map(\.generation) == [1])
    #expect(
      try FileManager.default.contentsOfDirectory(atPath: site.running.settings.runtimeDirectory)
        .allSatisfy { !$0.contains("@") })
  }

  @Test("give nothing of the host to clones whose disk is based on another file")
  func otherBase() async throws {
    let site = try BackupSite(image: [UInt8](repeating: 0, count: 1 << 20))
    #expect(try await make(site).state == .ready)
    let file = site.running.directory.path("office.carrel")
    try await site.succeed(.exportTemplate(pool, generation: nil, file: file))
    let secret = try site.running.directory.write(
      [UInt8](repeating: 3, count: 1 << 20), to: "secret")
    let evil = try repacked(
      site, file,
      """
      qemu-img rebase -u -F raw -b \(secret) $D/disk-1.qcow2
      F="$S $D/disk-1.qcow2 images/debian/image.raw"
      """)
    try await site.succeed(.importFile(evil, RestoreWish()))
    let (_, chain) = try site.running.directory.run(
      "qemu-img info -U --backing-chain \(site.state)/templates/office@2/disk-1.qcow2")
    #expect(chain.contains("\(site.state)/images/debian/image.raw"), "\(chain)")
    #expect(!chain.contains(secret), "\(chain)")
  }

  @Test("of which a bit is another are refused")
  func flipped() async throws {
    let (site, file) = try await exported()
    let bytes = try Files.read(file)
    let other = try other(site)
    for place in [bytes.count / 3, bytes.count / 2, bytes.count - 1] {
      var flipped = bytes
      flipped[place] ^= 4
      let path = try site.running.directory.write(flipped, to: "flipped.carrel")
      #expect(try await !other.problem(.importFile(path, RestoreWish())).isEmpty)
      #expect(try await other.supervisor.templates().isEmpty && other.remains().isEmpty)
    }
  }

  @Test("that there is no room for are not begun", .needsRoot)
  func full() async throws {
    let site = try BackupSite()
    try Files.replace(
      site.desk.pool.image.path, with: SmallGuest.sleeping(with: RandomBytes.make(3 << 20)))
    #expect(try await make(site).state == .ready)
    let file = site.running.directory.path("office.carrel")
    try await site.succeed(.exportTemplate(pool, generation: nil, file: file))
    let small = try SmallDisk(kibibytes: 2048)
    let other = try BackupSite(kernel: site.desk.pool.image.path, state: small.path)
    let job = try await other.perform(.importFile(file, RestoreWish()))
    guard case .failed(let problem) = job.state else {
      Issue.record("there was room")
      return
    }
    #expect(job.problemKind == .storage)
    #expect(problem.contains("it needs") && problem.contains("has 20"), "\(problem)")
    #expect(try names(other).isEmpty)
  }
}
