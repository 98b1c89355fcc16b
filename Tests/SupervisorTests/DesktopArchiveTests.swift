import Brokering
import Foundation
import LinuxSystem
import Supervisor
import TestSupport
import Testing

@Suite("Desktops as files", .needsKVM, .needs("tar", "zstd", "qemu-io", "qemu-img"), .serialized)
struct DesktopArchiveTests {
  /// A site with a file that holds a desktop with 1 in its first 64 KiB and 7 after it.
  private func exported() async throws -> (BackupSite, file: String) {
    let site = try BackupSite(image: [UInt8](repeating: 7, count: 2 << 20))
    try await site.start(1)
    try await site.stop()
    try site.onDisk("write -P 1 0 64k")
    let file = site.running.directory.path("office.carrel")
    try await site.succeed(.export(site.office, file: file))
    return (site, file)
  }

  @Test("that are cut off, or none at all, are called so, with what to do")
  func cutOff() async throws {
    let (site, file) = try await exported()
    let bytes = try Files.read(file)
    for contents in [Array(bytes.prefix(bytes.count / 2)), Array("host\n".utf8)] {
      let path = try site.running.directory.write(contents, to: "cut.carrel")
      let problem = try await site.problem(.importFile(path, RestoreWish()))
      #expect(problem.contains("\(path) is not a whole archive"), "\(problem)")
      #expect(problem.contains("copy it again, or export it anew"), "\(problem)")
    }
    #expect(site.remains().isEmpty)
  }

  @Test("are desktops again on another site, and only once under a name")
  func roundTrip() async throws {
    let (site, file) = try await exported()
    #expect(!Files.exists(file + ".part"))
    let attributes = try FileManager.default.attributesOfItem(atPath: file)
    #expect(attributes[.posixPermissions] as? Int == 0o600)
    #expect(try await site.problem(.export(site.office, file: file)).contains("there already"))
    let other = try BackupSite(image: [UInt8](repeating: 9, count: 1 << 20))
    let wish = RestoreWish(desktop: DesktopID(rawValue: "office-3"))
    try await other.succeed(.importFile(file, wish))
    #expect(try other.files("office-3") == ["disk-1.qcow2", "disk.raw"])
    try other.onDisk("read -P 1 0 64k", "read -P 7 64k 1M", of: "office-3")
    #expect(try await !other.problem(.importFile(file, wish)).isEmpty)
    #expect(other.remains().isEmpty && other.desk.results.count == 1)
    try await other.start(2, "office-3")
    try await other.supervisor.discard(DesktopID(rawValue: "office-3"))
  }

  /// What somebody does to an archive's files before they are packed again; `M` is what it
  /// says about itself.
  private static let attacks = [
    "ln -s /etc/passwd desktops/office-1/x; F=\"$F desktops/office-1/x\"",
    "rm desktops/office-1/disk-1.qcow2; ln -s /etc/passwd desktops/office-1/disk-1.qcow2",
    "ln desktops/office-1/disk-1.qcow2 desktops/office-1/x; F=\"$F desktops/office-1/x\"",
    "echo >> desktops/office-1/disk-1.qcow2",
    "echo > desktops/office-1/x; F=\"$F desktops/office-1/x\"",
    "echo > ../away; F=\"$F ../away\"",
    "F=\"$F $PWD/desktops/office-1/disk-1.qcow2\"",
    "F=\"$F desktops\"",
    "F=\"$F $M\"",
    "sed -i 's|images[\\\\]*/debian[\\\\]*/image.raw|images/debian/../../etc|g' $M",
    "sed -i 's|images[\\\\]*/debian[\\\\]*/image.raw|/etc/passwd|g' $M",
    "sed -i 's|\"isRaw\":true|\"isRaw\":false|g' $M",
    "sed -i 's|\"version\":1|\"version\":2|' $M",
    "echo '{' > $M", "truncate -s 2M $M",
    "F=\"images/debian/image.raw $M desktops/office-1/disk-1.qcow2\"; FIRST=",
  ]

  @Test("are refused when they are not what they say", arguments: attacks)
  func hostile(_ attack: String) async throws {
    let (site, file) = try await exported()
    try await site.supervisor.discard(site.office)
    let (status, output) = try site.running.directory.run(
      """
      mkdir -p evil/in && cd evil/in && tar -xf \(file) || exit 1
      M=desktops/office-1/backup.json; FIRST=$M
      F="images/debian/image.raw desktops/office-1/disk-1.qcow2"
      \(attack)
      tar --zstd -P --no-recursion -cf ../evil.carrel $FIRST $F
      """)
    #expect(status == 0, "\(output)")
    let before = try FileManager.default.subpathsOfDirectory(atPath: site.state).sorted()
    let problem = try await site.problem(
      .importFile(site.running.directory.path("evil/evil.carrel"), RestoreWish()))
    let reasons = [
      "is nothing that Carrel exported", "what it says about itself", "of format 2",
      "its disk cannot be used", "which is no qcow2 image",
    ]
    #expect(reasons.contains { problem.contains($0) }, "\(problem)")
    #expect(site.remains().isEmpty && site.desk.results.isEmpty)
    let after = try FileManager.default.subpathsOfDirectory(atPath: site.state).sorted()
      .filter { $0 != "backups" }
    #expect(after == before.filter { $0 != "backups" })
  }

  @Test("give nothing of the host to a guest whose images are based on other files")
  func otherBase() async throws {
    let (site, file) = try await exported()
    try await site.supervisor.discard(site.office)
    let secret = try site.running.directory.write(
      [UInt8](repeating: 3, count: 2 << 20), to: "secret")
    let (status, output) = try site.running.directory.run(
      """
      mkdir -p evil && cd evil && tar -xf \(file) || exit 1
      qemu-img rebase -u -F raw -b \(secret) desktops/office-1/disk-1.qcow2
      tar --zstd -cf ../evil.carrel desktops/office-1/backup.json images/debian/image.raw \
        desktops/office-1/disk-1.qcow2
      """)
    #expect(status == 0, "\(output)")
    try await site.succeed(
      .importFile(site.running.directory.path("evil.carrel"), RestoreWish()))
    try site.onDisk("read -P 1 0 64k", "read -P 7 64k 1M")
  }
}
